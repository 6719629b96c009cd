"""The training loop: exact resume at any step, checkpoints within their cost, bad inputs, bad losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from progress_recorder import ProgressRecorder
from tagmask.engine import training
from tagmask.engine.engine import Engine
from tagmask.engine.shared_memory import loader_bytes
from tagmask.engine.training import Options, epoch_order, train
from tagmask.errors import RunError
from tagmask.progress.listeners import SilentProgress
from tagmask.settings.engine import EngineSettings
from tagmask.storage.records import read_jsonl
from tagmask.types import Problem


class Numbers:
    """y = 3x of noisy views; inputs in ``broken`` cannot be read."""

    def __init__(self, n: int = 10, broken: frozenset[int] = frozenset()) -> None:
        self.n, self.broken = n, broken
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.n

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
        self.asked.append(index)
        if index in self.broken:
            return Problem("numbers", f"n{index}", f"{index}.jpg", f"{index}.jpg: broken")
        x = torch.tensor([index / self.n + rng.normal() * 0.1, 1.0], dtype=torch.float32)
        return {"x": x, "y": 3 * x[:1]}


class Fit:
    """A small network with dropout and momentum: both must survive a resume."""

    def __init__(self, dataset: Numbers | None = None, *, stop_at: int | None = None, lr: float = 0.05) -> None:
        torch.manual_seed(7)
        self.model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.dataset = Numbers() if dataset is None else dataset
        self.stop_at, self.lr = stop_at, lr
        self.steps = 0
        self.sizes: list[int] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.lr, "peak_lr": self.lr}]

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups)

    def rate(self, step: int, total: int) -> float:
        return 1 - step / total

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.steps == self.stop_at:
            raise KeyboardInterrupt
        self.steps += 1
        self.sizes.append(len(batch["x"]))
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}

    def validate(self, epoch: int) -> dict[str, Any] | None:
        return {"val": epoch}


def engine(seed: int = 0, **options: Any) -> Engine:
    plain = {"device": "cpu", "precision": "float32", "threads": 1}
    return Engine(EngineSettings.model_validate({**plain, **options}), seed=seed)


def fit(task: Fit, folder: Path, engine: Engine, *, epochs: int = 4, options: Options | None = None) -> list[Problem]:
    return train(engine, task, epochs=epochs, batch_size=3, folder=folder, progress=SilentProgress(), options=options)


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, list[dict[str, Any]]]:
    task, folder = Fit(), tmp_path_factory.mktemp("whole")
    fit(task, folder, engine())
    return task, read_jsonl(folder / "history.jsonl")


def test_it_learns(tmp_path: Path) -> None:
    task = Fit(Numbers(40))
    train(engine(), task, epochs=20, batch_size=8, folder=tmp_path, progress=SilentProgress())
    losses = [line["loss"] for line in read_jsonl(tmp_path / "history.jsonl") if "loss" in line]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


@settings(max_examples=15)
@given(stops=st.lists(st.integers(0, 11), min_size=1, max_size=3), overhead=st.sampled_from([0.0, 1.0]))
def test_resumed_at_any_step_it_ends_the_same(
    stops: list[int], overhead: float, uninterrupted: tuple[Fit, list[dict[str, Any]]]
) -> None:
    whole, history = uninterrupted
    with TemporaryDirectory() as name:
        folder = Path(name)
        for stop in stops:
            try:
                fit(Fit(stop_at=stop), folder, engine(checkpoint_overhead=overhead))
            except KeyboardInterrupt:
                continue
        last = Fit()
        fit(last, folder, engine())
        assert same(last.model, whole.model)
        assert read_jsonl(folder / "history.jsonl") == history


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, however slow the disk."""
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.usefixtures("no_time_passes")
def test_with_every_step_saved_only_the_rest_is_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Fit(stop_at=8), tmp_path, engine())
    rest = Fit()
    fit(rest, tmp_path, engine())
    assert rest.steps == 12 - 8


def test_a_finished_training_is_not_trained_further(tmp_path: Path) -> None:
    task = Fit()
    fit(task, tmp_path, engine())
    again = Fit()
    fit(again, tmp_path, engine())
    assert again.steps == 0
    assert same(again.model, task.model)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_change_nothing(
    tmp_path: Path, workers: int, uninterrupted: tuple[Fit, list[dict[str, Any]]]
) -> None:
    task = Fit()
    fit(task, tmp_path, engine(workers=workers))
    assert same(task.model, uninterrupted[0].model)


def test_seeds_differ(tmp_path: Path, uninterrupted: tuple[Fit, list[dict[str, Any]]]) -> None:
    task = Fit()  # the same first weights: only order, augmentation and dropout may differ
    fit(task, tmp_path, engine(seed=1))
    assert not same(task.model, uninterrupted[0].model)


def test_every_epoch_has_its_own_order_and_every_input_once(tmp_path: Path) -> None:
    data = Numbers(12)
    fit(Fit(data), tmp_path, engine(), epochs=3)
    epochs = [data.asked[start : start + 12] for start in (0, 12, 24)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_rates_follow_the_schedule(uninterrupted: tuple[Fit, list[dict[str, Any]]]) -> None:
    rates = [line["lr"] for line in uninterrupted[1] if "lr" in line]
    assert rates == pytest.approx([0.05 * (1 - step / 12) for step in range(12)])


def test_validation_after_each_epoch_is_in_the_history(uninterrupted: tuple[Fit, list[dict[str, Any]]]) -> None:
    assert [(line["step"], line["epoch"]) for line in uninterrupted[1] if "val" in line] == [
        (3, 1), (6, 2), (9, 3), (12, 4)
    ]  # fmt: skip


# -- options ---------------------------------------------------------------------------------------------

EVERYTHING = Options(iterations=9, accumulate=2, ema=0.7, weights=[1.0 + n % 3 for n in range(10)])


@pytest.fixture(scope="module")
def with_everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, list[dict[str, Any]]]:
    task, folder = Fit(), tmp_path_factory.mktemp("whole")
    fit(task, folder, engine(), options=EVERYTHING)
    return task, read_jsonl(folder / "history.jsonl")


@settings(max_examples=12)
@given(stop=st.integers(0, 17), overhead=st.sampled_from([0.0, 1.0]))
def test_resumed_with_all_options_it_ends_the_same(
    stop: int, overhead: float, with_everything: tuple[Fit, list[dict[str, Any]]]
) -> None:
    """Stopped between updates, and between the two batches of one update."""
    whole, history = with_everything
    with TemporaryDirectory() as name:
        folder = Path(name)
        with pytest.raises(KeyboardInterrupt):
            fit(Fit(stop_at=stop), folder, engine(checkpoint_overhead=overhead), options=EVERYTHING)
        last = Fit()
        fit(last, folder, engine(), options=EVERYTHING)
        assert same(last.model, whole.model)
        assert read_jsonl(folder / "history.jsonl") == history
        again = Fit()
        fit(again, folder, engine(), options=EVERYTHING)  # nothing left to do: the average comes from the checkpoint
        assert again.steps == 0
        assert same(again.model, whole.model)


def test_two_batches_make_one_update_of_twice_the_size(tmp_path: Path) -> None:
    class Plain(Fit):
        def __init__(self) -> None:
            super().__init__(Numbers(12))
            torch.manual_seed(7)
            self.model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1))  # nothing that sees its batch

    large, small = Plain(), Plain()
    train(engine(), large, epochs=3, batch_size=6, folder=tmp_path / "a", progress=SilentProgress())
    train(
        engine(), small, epochs=3, batch_size=3, folder=tmp_path / "b", progress=SilentProgress(),
        options=Options(accumulate=2),
    )  # fmt: skip
    assert small.sizes == [3] * 12
    assert large.sizes == [6] * 6
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("n", "accumulate"), [(2, 4), (5, 3), (1, 2)])
def test_fewer_inputs_than_one_update_takes(tmp_path: Path, n: int, accumulate: int) -> None:
    task = Fit(Numbers(n))
    task.model[1].eval()  # batch norm has no variance over one input
    task.model.train = lambda mode=True: task.model  # type: ignore[method-assign, assignment]
    fit(task, tmp_path, engine(), epochs=2, options=Options(accumulate=accumulate))
    assert len(task.sizes) == 2 * accumulate
    assert all(task.sizes)


def test_iterations_instead_of_epochs(tmp_path: Path) -> None:
    task = Fit()
    fit(task, tmp_path, engine(), epochs=100, options=Options(iterations=5))
    assert task.steps == 5
    lines = [line for line in read_jsonl(tmp_path / "history.jsonl") if "loss" in line]
    assert [line["epoch"] for line in lines] == [0.333, 0.667, 1.0, 1.333, 1.667]


def test_the_average_by_hand(tmp_path: Path) -> None:
    class Watched(Fit):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        def rate(self, step: int, total: int) -> float:
            self.seen.append(self.model[0].weight.detach().clone())
            return super().rate(step, total)

    task = Watched()
    fit(task, tmp_path, engine(), options=Options(ema=0.5))
    raw = Fit()
    fit(raw, tmp_path / "raw", engine())
    expected = task.seen[0]
    for step, weight in enumerate([*task.seen[1:], raw.model[0].weight.detach()]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(task.model[0].weight.detach(), expected)
    assert int(task.model[1].num_batches_tracked) == 12  # type: ignore[arg-type]


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_inputs_are_drawn_as_often_as_their_weights_say(weights: list[float], seed: int) -> None:
    n = len(weights)
    order = epoch_order(n, np.random.default_rng(seed), weights)
    assert order == epoch_order(n, np.random.default_rng(seed), weights)
    assert len(order) == n
    for index, weight in enumerate(weights):
        times = [again for which, again in order if which == index]
        assert times == list(range(len(times)))
        expected = n * weight / sum(weights)
        assert np.floor(expected - 1e-6) <= len(times) <= np.ceil(expected + 1e-6)


def test_an_input_drawn_again_is_another_view(tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(Numbers):
        def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
            result = super().item(index, rng)
            if index == 0 and isinstance(result, dict):
                seen.append(float(result["x"][0]))
            return result

    fit(Fit(Watched()), tmp_path, engine(), epochs=1, options=Options(weights=[30.0] + [1.0] * 9))
    assert len(seen) >= 6
    assert len(set(seen)) == len(seen)


# -- checkpoints -----------------------------------------------------------------------------------------


class Clock:
    """Each training step takes 1 s, each save ``cost`` s."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0.0, cost
        self.saved: list[float] = []

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost", "overhead"), [(0.01, 0.05), (1.0, 0.1), (3.0, 0.05), (5.0, 1.0)])
def test_saving_takes_no_more_than_its_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, overhead: float
) -> None:
    clock = Clock(cost)
    really_save = torch.save

    def slow_save(*arguments: Any) -> None:
        clock.saved.append(clock.now)
        clock.now += cost
        really_save(*arguments)

    class Slow(Fit):
        def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
            clock.now += 1
            return super().losses(model, batch)

    monkeypatch.setattr(training.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(torch, "save", slow_save)
    task = Slow(Numbers(300))
    train(
        engine(checkpoint_overhead=overhead), task, epochs=1, batch_size=3, folder=tmp_path, progress=SilentProgress()
    )
    between = np.diff(clock.saved)[:-1] - cost  # the save at the end is due whatever it costs
    assert len(clock.saved) >= 2
    assert (between * overhead >= cost).all()
    assert between.max(initial=0) <= max(1.0, cost / overhead) + 1  # and no rarer than it may be


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    fit(Fit(), tmp_path, engine())
    path = tmp_path / "state.ckpt"
    content = path.read_bytes()
    for torn in (b"", content[:100], content[: len(content) // 2], content[:-30], b"no checkpoint at all"):
        path.write_bytes(torn)
        with pytest.raises(RunError, match=r"state\.ckpt: not a readable checkpoint\. Delete it") as raised:
            fit(Fit(), tmp_path, engine())
        assert "\n" not in str(raised.value)


def test_a_checkpoint_is_no_pickle_of_anything(tmp_path: Path) -> None:
    torch.save({"model": Fit(), "optimizer": {}, "step": 1}, tmp_path / "state.ckpt")
    with pytest.raises(RunError, match="not a readable checkpoint"):
        fit(Fit(), tmp_path, engine())


# -- bad inputs, bad losses ------------------------------------------------------------------------------


def test_bad_inputs_are_left_out_and_named_once(tmp_path: Path) -> None:
    task = Fit(Numbers(broken=frozenset({2, 5})))
    problems = fit(task, tmp_path, engine())
    assert [problem.id for problem in problems] == ["n2", "n5"]
    assert task.steps == 12
    assert set(task.sizes) == {3}  # another input takes the place, so that batches keep their size


@settings(max_examples=8)
@given(stop=st.integers(1, 11))
def test_inputs_left_out_before_a_kill_are_named_after_it(stop: int) -> None:
    broken = frozenset({0, 4, 9})
    with TemporaryDirectory() as name:
        with pytest.raises(KeyboardInterrupt):
            fit(Fit(Numbers(broken=broken), stop_at=stop), Path(name), engine(checkpoint_overhead=1.0))
        problems = fit(Fit(Numbers(broken=broken)), Path(name), engine())
    assert [problem.id for problem in problems] == ["n0", "n4", "n9"]


def test_one_readable_input_is_enough(tmp_path: Path) -> None:
    task = Fit(Numbers(broken=frozenset(range(9))))
    assert len(fit(task, tmp_path, engine(), epochs=1)) == 9
    assert task.steps == 3


def test_with_little_shared_memory_batches_go_through_pipes(
    tmp_path: Path, uninterrupted: tuple[Fit, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MB is what a container has; a loader process that finds no room dies, and its batch is waited for."""
    for free, spoken in ((1 << 30, False), (300, True)):
        monkeypatch.setattr(training, "free_bytes", lambda free=free: free)
        progress = ProgressRecorder()
        folder = tmp_path / str(free)
        folder.mkdir()
        task = Fit()
        train(engine(workers=2), task, epochs=4, batch_size=3, folder=folder, progress=progress)
        assert any("go through pipes" in text for text in progress.lines) == spoken
        assert read_jsonl(folder / "history.jsonl") == uninterrupted[1]
        assert same(task.model, uninterrupted[0].model)
    assert loader_bytes({"x": torch.zeros(3, 4), "y": torch.zeros(2, dtype=torch.int64)}, 5, 2) == (48 + 16) * 5 * 5


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_input_ends_the_run_in_one_line(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RunError, match=r"none of the 10 inputs could be read; the first: .*jpg: broken") as raised:
        fit(Fit(Numbers(broken=frozenset(range(10)))), tmp_path, engine(workers=workers))
    assert "\n" not in str(raised.value)


def test_no_input_at_all(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no training image"):
        fit(Fit(Numbers(0)), tmp_path, engine())


def test_fewer_inputs_than_a_batch(tmp_path: Path) -> None:
    task = Fit(Numbers(2))
    fit(task, tmp_path, engine())
    assert task.sizes == [2] * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(tmp_path: Path, value: float) -> None:
    class Exploding(Fit):
        def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
            terms = super().losses(model, batch)
            return {"loss": terms["loss"] * value} if self.steps == 4 else terms

    task = Exploding()
    with pytest.raises(RunError, match=r"not finite\. Lower the learning rate"):
        fit(task, tmp_path, engine())
    assert task.steps == 4
    assert all(torch.isfinite(parameter).all() for parameter in task.model.parameters())


def test_gradients_are_clipped_where_asked_for(tmp_path: Path) -> None:
    class Steep(Fit):
        def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            return torch.optim.SGD(groups, lr=1.0)

        def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": super().losses(model, batch)["loss"] * 1e6}

    task = Steep(lr=1.0)
    before = [parameter.detach().clone() for parameter in task.model.parameters()]
    train(engine(), task, epochs=1, batch_size=10, folder=tmp_path, progress=SilentProgress(), clip_norm=0.5)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(task.model.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-3)
