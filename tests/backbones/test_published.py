"""timm's published weights without a network: a copy on this machine does, else the end comes soon and in one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from tagmask import cli
from tagmask.backbones import published
from tagmask.backbones.build import build_backbone
from tagmask.errors import InputError

TINY = "test_resnet"


class Session:
    """Stands for huggingface_hub's: answers a status, fails, or does not answer at all."""

    def __init__(self, answer: int | Exception | float) -> None:
        self.answer, self.asked = answer, []

    def head(self, url: str, timeout: float) -> Any:
        self.asked.append((url, timeout))
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, float):
            time.sleep(self.answer)
        return type("Response", (), {"status_code": self.answer})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``hub(answer)``: what a request meets, and nothing is on this machine."""

    def use(answer: int | Exception | float, copy: Path | None = None) -> Session:
        session = Session(answer)
        monkeypatch.setattr(published, "get_session", lambda: session)
        monkeypatch.setattr(
            huggingface_hub,
            "try_to_load_from_cache",
            lambda repository, file, revision: str(copy) if copy and file == copy.name else None,
        )
        return session

    return use


@pytest.mark.parametrize(
    ("answer", "why"),
    [(OSError("Name or service not known"), "Name or service not known"), (503, "the server answers 503"), (30.0, "")],
    ids=["no name", "a proxy refuses", "silence"],
)
def test_no_network_ends_soon_with_both_keys(hub: Any, answer: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "PATIENCE", 0.3)
    session = hub(answer)
    begin = time.monotonic()
    with pytest.raises(InputError) as raised:
        build_backbone(TINY, weights="timm")
    assert time.monotonic() - begin < 3
    said = str(raised.value)
    assert (why or "no answer in 0.3 s") in said
    assert said.startswith("classify.backbone=test_resnet: ")
    for word in ("classify.weights", "segment.network.weights", "'installed'", "tf_efficientnet_lite0"):
        assert word in said
    assert "\n" not in said
    assert len(session.asked) == 1
    assert session.asked[0][0].endswith("/timm/test_resnet.r160_in1k/resolve/main/model.safetensors")


def test_five_seconds_are_the_most() -> None:
    assert published.PATIENCE < 5


@pytest.mark.parametrize("status", [200, 302, 401, 404])
def test_a_network_that_answers_is_left_to_timm(hub: Any, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(status)
    asked: list[dict[str, Any]] = []

    def create(name: str, **options: Any) -> Any:
        asked.append({"name": name, **options})
        return original(name, **{**options, "pretrained": False})

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    build_backbone(TINY, weights="timm")
    assert asked[-1]["pretrained"] is True
    assert "pretrained_cfg_overlay" not in asked[-1]


def test_a_copy_on_this_machine_needs_no_network(hub: Any, tmp_path: Path) -> None:
    torch.manual_seed(7)
    model = timm.create_model(TINY)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    session = hub(OSError("no network"), tmp_path / "model.safetensors")
    mine = build_backbone(TINY, weights="timm")
    assert session.asked == []
    for name, value in mine.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("name", "said"), [("resnet10t.nothing", "Invalid pretrained tag"), ("mnasnet_050", "No pretrained weights exist")]
)
def test_networks_without_published_weights_say_so(hub: Any, name: str, said: str) -> None:
    session = hub(OSError("no network"))
    with pytest.raises(InputError, match=f"no published weights of it could be had .*{said}"):
        build_backbone(name, weights="timm")
    assert session.asked == []


def test_a_run_without_a_network_is_one_line(
    hub: Any, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub(OSError("Name or service not known"))
    recipe = root / "tests" / "cli" / "tiny.yaml"
    overrides = [f"classify.backbone={TINY}", "classify.weights=timm"]
    with pytest.raises(SystemExit) as left:
        cli.main(["run", str(recipe), *overrides, "--output", str(tmp_path / "run")])
    assert left.value.code == 2
    assert "classify.weights and segment.network.weights to 'installed'" in " ".join(capsys.readouterr().err.split())


def test_the_networks_weights_are_asked_for_before_anything_is_trained(
    hub: Any, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = hub(OSError("Name or service not known"))
    changes = [f"segment.network.encoder={TINY}", "segment.network.weights=timm"]
    command = ["run", str(root / "tests" / "cli" / "tiny.yaml"), *changes, "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as left:
        cli.main(command)
    assert left.value.code == 2
    assert "segment.network.encoder=test_resnet" in capsys.readouterr().err
    assert not (tmp_path / "run" / "classify").exists()
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--until", "refine"])
    assert left.value.code == 0
    assert len(session.asked) == 1  # the network was no part of it
