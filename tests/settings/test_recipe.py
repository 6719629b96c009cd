"""Recipes: short forms, overrides, paths, inheritance, and every typo in one line with the right name."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tagmask import cli, registry
from tagmask.errors import InputError, RecipeError, TagmaskError, UnknownNameError
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.pamr.refiner import Pamr
from tagmask.pipeline.plan import plan
from tagmask.registry import table
from tagmask.registry.validation import RenamedKey
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.settings.segment import SegmentSettings

# 'own' finds the format in the user's folder and cannot be loaded without one: tests/cli/test_recipes.py has it.
RECIPES = sorted(path for path in (Path(__file__).parents[2] / "recipes").rglob("*.yaml") if path.stem != "own")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def complaint(source: Any, *overrides: str) -> str:
    """The error of a recipe; always one line."""
    with pytest.raises(InputError) as raised:
        load_recipe(source, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# -- typos -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "wrong", "right"),
    [
        ({"clasify": {}}, "clasify", "classify"),
        ({"engine": {"devcies": 2}}, "engine.devcies", "devices"),
        ({"classify": {"epoch": 3}}, "classify.epoch", "epochs"),
        ({"classify": {"optimizer": {"weight_decy": 0}}}, "classify.optimizer.weight_decy", "weight_decay"),
        ({"classify": {"augment": {"kropp": 0}}}, "classify.augment.kropp", "crop"),
        ({"classify": {"head": {"dropot": 0.1}}}, "dropot", "dropout"),
        ({"localize": {"scale": [1.0]}}, "localize.scale", "scales"),
        ({"localize": {"name": "cam", "flipp": True}}, "localize.flipp", "flip"),
        ({"refine": [{"name": "threshold", "valeu": 0.3}]}, "valeu", "value"),
        ({"segment": {"network": {"encodr": "x"}}}, "encodr", "encoder"),
        ({"segment": {"supervison": "weak"}}, "segment.supervison", "supervision"),
        ({"evaluate": {"threshold": 3}}, "evaluate.threshold", "thresholds"),
        ({"data": {"format": "partsworld", "trian": 3}}, "trian", "train"),
        ({"data": {"format": "table", "root": ".", "seperator": ","}}, "seperator", "separator"),
    ],
)
def test_a_wrong_key_gets_the_nearest_right_one(recipe: dict[str, Any], wrong: str, right: str) -> None:
    text = complaint(recipe)
    assert f"'{wrong}'" in text
    assert f"Did you mean '{right}'?" in text


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("localize=cma", "cam"),
        ("localize.name=cma", "cam"),
        ("refine=[colour_wlak, threshold]", "colour_walk"),
        ("refine.treshold.value=0.3", "threshold"),
        ("classify.head=gpa", "gap"),
        ("segment.network=deeplabv3pls", "deeplabv3plus"),
        ("data=partworld", "partsworld"),
        ("data.format=tabel", "table"),
    ],
)
def test_a_wrong_method_gets_the_nearest_right_one(override: str, right: str) -> None:
    assert f"Did you mean '{right}'?" in complaint({}, override)


def test_a_wrong_backbone_gets_the_nearest_right_one() -> None:
    from tagmask.backbones.build import build_backbone

    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        build_backbone("resnet_50")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("classify.epochs=0", "classify.epochs"),
        ("classify.epochs=many", "got 'many'"),
        ("classify.schedule_epochs=4", "schedule_epochs: 4 goes with epochs of at most as many"),
        ("engine.device=gpu", "'cuda'"),
        ("classify.augment.scale=[0.9, 0.5]", "smallest <= largest, not [0.9, 0.5]"),
        ("classify.augment.long_side=[640, 320]", "classify.augment.long_side"),
        ("segment.augment.kind=resized_crop", "scale_crop"),
        ("refine=colour_walk", "must end in a refiner that makes labels"),
        ("refine=[threshold, colour_walk]", "'threshold' makes labels, so it must be the last"),
        ("refine=[]", "makes no masks"),
        ("name=..", "name"),
        ("seed=-1", "seed"),
        ("localize.scales=[]", "localize.scales"),
        ("classify", "write key=value"),
        ("classify..epochs=3", "write key=value"),
        ("data=", "expected the name of a format"),
        ("data=[1]", "got [1]"),
        ("data.format=3", "got"),
        ("refine=[3]", "expected the name of a refiner"),
        ("localize=[1]", "expected the name of a localizer"),
        ("data.format=voc", "root"),
        ("data.format=auto", "data.root is missing"),
    ],
)
def test_a_wrong_value_is_named(override: str, said: str) -> None:
    assert said in complaint({}, override)


def test_a_value_has_no_keys_below_it() -> None:
    assert "classify.epochs holds the value 3" in complaint({"classify": {"epochs": 3}}, "classify.epochs.x=1")


# -- overrides -------------------------------------------------------------------------------------------

CHAINS: list[dict[str, Any]] = [
    {},
    {"refine": "threshold"},
    {"refine": {"name": "threshold", "band": 0.0}},
    {"refine": ["threshold"]},
    {"refine": ["colour_walk", "threshold"]},
    {"refine": ["colour_walk", {"name": "threshold"}]},
]


@pytest.mark.parametrize("recipe", CHAINS, ids=str)
def test_the_threshold_can_be_overridden_whatever_form_the_chain_has(recipe: dict[str, Any]) -> None:
    assert load_recipe(recipe, ["refine.threshold.value=0.3"]).refine.chain[-1].value == 0.3


def test_items_of_a_chain_by_number() -> None:
    recipe = load_recipe({"refine": ["colour_walk", "threshold"]}, ["refine.0.steps=7", "refine.1=threshold"])
    assert recipe.refine.chain[0].steps == 7
    assert len(recipe.refine.chain) == 2


def test_settings_of_methods_that_the_recipe_does_not_name() -> None:
    recipe = load_recipe(
        {},
        [
            "classify.head.dropout=0.1",
            "localize.scales=[1.0]",
            "segment.network.decoder_channels=32",
            "data=partsworld",
            "data.train=24",
        ],
    )
    assert recipe.classify.head.dropout == 0.1
    assert recipe.localize.scales == (1.0,)
    assert recipe.segment is not None
    assert recipe.segment.network.decoder_channels == 32
    assert recipe.data.train == 24


def test_later_overrides_win_and_the_callers_mapping_is_left_alone() -> None:
    given_values = {"classify": {"epochs": 3, "optimizer": {"lr": 1.0}}}
    recipe = load_recipe(given_values, ["classify.epochs=4", "classify.epochs=5", "classify.optimizer.lr=2"])
    assert (recipe.classify.epochs, recipe.classify.optimizer.lr) == (5, 2.0)
    assert given_values == {"classify": {"epochs": 3, "optimizer": {"lr": 1.0}}}


def test_null_and_numbers_in_yaml_of_overrides() -> None:
    recipe = load_recipe(
        {}, ["segment=null", "classify.optimizer.momentum=null", "classify.optimizer.lr=1e-3", "engine.threads="]
    )
    assert recipe.segment is None
    assert recipe.classify.optimizer.momentum is None
    assert recipe.classify.optimizer.lr == 1e-3
    assert recipe.engine.threads is None


def test_one_changed_key_leaves_the_stages_other_defaults() -> None:
    """The segmentation network's augmentation and rate are not those that the classifier starts from."""
    plain, changed = load_recipe({}), load_recipe({}, ["segment.augment.crop=99", "segment.optimizer.head_lr=0.5"])
    assert plain.segment is not None
    assert changed.segment is not None
    assert changed.segment.augment == plain.segment.augment.model_copy(update={"crop": 99})
    assert changed.segment.optimizer == plain.segment.optimizer.model_copy(update={"head_lr": 0.5})


# -- files -----------------------------------------------------------------------------------------------


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(
        tmp_path / "recipes" / "own.yaml",
        "data: {format: folders, root: ../pictures}\n"
        "classify: {weights: w.safetensors}\n"
        "segment: {network: {weights: n.safetensors}}\n",
    )
    recipe = load_recipe(path)
    assert recipe.data.root == tmp_path / "pictures"
    assert recipe.classify.weights == tmp_path / "recipes" / "w.safetensors"
    assert recipe.segment is not None
    assert recipe.segment.network.weights == tmp_path / "recipes" / "n.safetensors"


def test_paths_in_overrides_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "recipes" / "own.yaml", "data: {format: folders, root: x}\n")
    monkeypatch.chdir(tmp_path)
    overrides = ["data.root=mine", "classify={weights: w.safetensors}", "evaluate.full_run=runs/full"]
    recipe = load_recipe(path, overrides)
    assert recipe.data.root == tmp_path / "mine"
    assert recipe.classify.weights == tmp_path / "w.safetensors"
    assert recipe.evaluate.full_run == tmp_path / "runs" / "full"


def test_home_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe({}, ["classify.weights=~/w.safetensors", "segment.network.weights=/n.safetensors"])
    assert recipe.classify.weights == tmp_path / "w.safetensors"
    assert recipe.segment is not None
    assert recipe.segment.network.weights == Path("/n.safetensors")


def test_words_that_are_no_paths_stay_words() -> None:
    recipe = load_recipe({}, ["classify.weights=timm", "segment.network.weights=classifier"])
    assert recipe.classify.weights == "timm"
    assert recipe.segment is not None
    assert recipe.segment.network.weights == "classifier"


def test_extends_is_merged_below(tmp_path: Path) -> None:
    write(
        tmp_path / "base.yaml",
        "name: base\nclassify: {epochs: 3, weights: w.safetensors, optimizer: {lr: 0.5}}\nrefine: [threshold]\n",
    )
    child = write(
        tmp_path / "deep" / "child.yaml", "extends: ../base.yaml\nclassify: {optimizer: {head_lr: 0.25}}\nname: child\n"
    )
    recipe = load_recipe(child)
    assert recipe.name == "child"
    assert recipe.classify.epochs == 3
    assert (recipe.classify.optimizer.lr, recipe.classify.optimizer.head_lr) == (0.5, 0.25)
    # A path belongs to the file that it stands in.
    assert recipe.classify.weights == tmp_path / "w.safetensors"


def test_extends_in_a_circle_or_into_nothing(tmp_path: Path) -> None:
    one = write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    assert "round in circles" in complaint(one)
    assert str(tmp_path / "none.yaml") in complaint(write(tmp_path / "c.yaml", "extends: none.yaml\n"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a recipe is a mapping"),
        (b"- 1\n", "a recipe is a mapping"),
        (b"a: [\n", "not valid YAML"),
        (b"classify: {epochs: 1}\nclassify: {epochs: 2}\n", "the key 'classify' stands twice"),
        (b"classify: {epochs: 1, epochs: 2}\n", "the key 'epochs' stands twice"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    text = complaint(path)
    assert said in text
    assert str(path) in text


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "cannot read the recipe" in complaint(tmp_path / "none.yaml")
    assert "cannot read the recipe" in complaint(tmp_path)


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes("\ufeffclassify: {epochs: 3}\r\n".encode())
    assert load_recipe(path).classify.epochs == 3


@pytest.mark.parametrize(("file", "name"), [("my recipe (2).yaml", "my-recipe-2"), ("ü.yaml", "ü"), ("...yaml", "run")])
def test_the_name_comes_from_the_file(tmp_path: Path, file: str, name: str) -> None:
    assert load_recipe(write(tmp_path / file, "classify: {epochs: 3}\n")).name == name


# -- round trips and fingerprints ------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_hold(path: Path) -> None:
    recipe = load_recipe(path)
    assert load_recipe(recipe.dump()) == recipe
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_a_shipped_recipe_whose_data_is_not_here_says_so_in_one_line(tmp_path: Path) -> None:
    for path in RECIPES:
        recipe = load_recipe(path)
        if hasattr(recipe.data, "root"):
            moved = load_recipe(recipe, [f"data.root={tmp_path / 'nowhere'}"])
            with pytest.raises(TagmaskError) as raised:
                moved.data.open()
            assert str(tmp_path / "nowhere") in str(raised.value)
            assert "\n" not in str(raised.value)


@given(
    epochs=st.integers(1, 500),
    scales=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=4),
    chain=st.sampled_from([chain.get("refine", "threshold") for chain in CHAINS]),
    value=st.one_of(st.just("auto"), st.floats(0, 1)),
    segment=st.one_of(st.none(), st.fixed_dictionaries({"supervision": st.sampled_from(["weak", "full", "both"])})),
    seed=st.integers(0, 2**40),
)
def test_dumping_and_loading_is_the_identity(
    epochs: int, scales: list[float], chain: Any, value: Any, segment: Any, seed: int
) -> None:
    recipe = load_recipe(
        {
            "classify": {"epochs": epochs},
            "localize": {"scales": scales},
            "refine": chain,
            "segment": segment,
            "seed": seed,
        },
        [f"refine.threshold.value={value}"],
    )
    assert load_recipe(recipe.dump()) == recipe
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    assert load_recipe(recipe) == recipe


def fingerprints(recipe: Recipe) -> dict[str, str]:
    return {step.name: step.fingerprint for step in plan(recipe, _source(), "float32")}


def _source() -> Any:
    from tagmask.types import ClassList, DataSource

    return DataSource("table", ClassList(("background", "cow")), {}, "f")


class Stateful(Pamr):
    """A refiner of another package that looks at a file."""

    name: ClassVar[str] = "stateful"
    content: ClassVar[str] = ""

    def state(self) -> str:
        return self.content


class StatefulCam(Cam):
    name: ClassVar[str] = "stateful_cam"

    def state(self) -> str:
        return Stateful.content


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"refine": ["stateful", "threshold"]}, {"refine", "segment", "evaluate"}),
        ({"localize": {"name": "ssa", "inner": "stateful_cam"}}, {"localize", "refine", "segment", "evaluate"}),
    ],
)
def test_a_method_of_any_kind_may_have_a_state(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], redone: set[str]
) -> None:
    for kind, cls in (("refiner", Stateful), ("localizer", StatefulCam)):
        known = dict(table._tables()[kind])  # type: ignore[index]
        entry = table.Entry(f"{__name__}:{cls.__name__}", "")
        monkeypatch.setitem(table._tables(), kind, {**known, cls.name: entry})
    recipe = load_recipe(changes)
    without = fingerprints(recipe)
    monkeypatch.setattr(Stateful, "content", "first")
    first = fingerprints(recipe)
    monkeypatch.setattr(Stateful, "content", "second")
    second = fingerprints(recipe)
    for one, other in ((without, first), (first, second)):
        assert {name for name in one if one[name] != other[name]} == redone


def test_kinds_that_there_are_not_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name, "somewhere:It", "tagmask.methods") for name in ("localiser.mine", "head", "loss.fine")]
    monkeypatch.setattr(table, "entry_points", lambda group: points)
    table._tables.cache_clear()
    try:
        with pytest.warns(table.UnknownKind) as caught:
            assert "fine" in registry.entries("loss")
    finally:
        monkeypatch.undo()
        table._tables.cache_clear()
    texts = [str(line.message) for line in caught]
    assert texts[0] == "entry point 'localiser.mine': not KIND.NAME of a known kind. Did you mean 'localizer'?"
    assert texts[1].startswith("entry point 'head': not KIND.NAME")
    assert len(texts) == 2


def test_fingerprints_ignore_what_changes_no_result() -> None:
    plain = fingerprints(load_recipe({}))
    same = load_recipe({}, ["name=other", "engine.devices=2", "engine.workers=3", "engine.checkpoint_overhead=1"])
    assert fingerprints(same) == plain


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("seed=1", {"classify", "localize", "refine", "segment", "evaluate"}),
        ("classify.epochs=99", {"classify", "localize", "refine", "segment", "evaluate"}),
        ("localize.flip=false", {"localize", "refine", "segment", "evaluate"}),
        ("refine.threshold.value=0.9", {"refine", "segment", "evaluate"}),
        ("segment.epochs=99", {"segment", "evaluate"}),
        ("evaluate.thresholds=9", {"evaluate"}),
    ],
)
def test_a_change_reaches_what_is_downstream_of_it(override: str, redone: set[str]) -> None:
    before, after = fingerprints(load_recipe({})), fingerprints(load_recipe({}, [override]))
    assert {name for name in after if after[name] != before[name]} == redone


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = (
        "from tagmask.settings.loading import load_recipe\nfrom tagmask.pipeline.plan import plan\n"
        "from tagmask.types import ClassList, DataSource\n"
        "source = DataSource('table', ClassList(('background', 'cow')), {}, 'f')\n"
        "print(*[step.fingerprint for step in plan(load_recipe({}), source, 'float32')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(fingerprints(load_recipe({})).values())


def test_stages_of_each_kind_of_supervision() -> None:
    def stages(*overrides: str) -> list[str]:
        return list(fingerprints(load_recipe({}, overrides)))

    assert stages("segment.supervision=weak") == ["classify", "localize", "refine", "segment", "evaluate"]
    assert stages("segment.supervision=full") == ["segment/full", "evaluate"]
    assert stages("segment.supervision=full", "segment.network.weights=classifier") == [
        "classify",
        "segment/full",
        "evaluate",
    ]
    assert stages("segment=null") == ["classify", "localize", "refine", "evaluate"]


def test_recipe_errors_are_the_users() -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe({"clasify": 3})
    assert raised.value.exit_code == 2


def test_a_localizers_old_key_is_read_with_a_hint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("localize: {name: ssa, seed: {name: lpcam, seed: recam}}\nclassify: {head: recam}\nseed: 3\n")
    with pytest.warns(RenamedKey, match="'localize.seed' is called 'localize.inner' now"):
        recipe = load_recipe(path)
    assert [part.name for part in recipe.localize.method.parts()] == ["ssa", "lpcam", "recam"]
    assert recipe.seed == 3
    assert "inner:" in recipe.to_yaml()
    assert recipe.fingerprint_values()["localize"]["seed"]["seed"]["name"] == "recam"
    with pytest.raises(SystemExit):
        cli.main(["recipe", "validate", str(path)])
    hints = [line for line in capsys.readouterr().err.splitlines() if "is called" in line]
    assert len(hints) == 2
    assert all(line.startswith("note: ") for line in hints)


@pytest.mark.parametrize("sign", [" ", ",", "|", ";", "-", "/", ">", "#"])
def test_a_separator_may_be_any_one_sign(tmp_path: Path, sign: str) -> None:
    recipe = load_recipe({"data": {"format": "table", "root": str(tmp_path)}}, [f"data.separator={sign}"])
    assert recipe.data.separator == sign


def test_real_masks_are_learnt_with_the_recipes_loss_unless_that_needs_more() -> None:
    """Full supervision is a control: it must differ by its masks alone."""
    dice = SegmentSettings.model_validate({"loss": {"name": "dice", "balance": 0.5}})
    assert dice.plain_loss == dice.loss
    aamr = SegmentSettings.model_validate({"loss": "aamr", "saliency": "minimum_barrier"})
    assert aamr.plain_loss.name == "cross_entropy"
