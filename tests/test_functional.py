"""The public functions: names, arguments and defaults that users rely on, one home, and a page that lists them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from scripts import load_script
from tagmask import functional, metrics, registry
from tagmask.methods.irnet.losses import irnet_losses
from tagmask.methods.irnet.refiner import IRNet
from tagmask.methods.spa.head import restricted_activation_loss

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Calls that stay as they are: a new argument needs a default and a name.
STABLE = """
random_walk(maps, edge, *, radius=5, beta=10.0, steps=256)
affinity_random_walk(maps, affinity, *, radius=5, beta=8.0, steps=256)
dense_crf(image, probabilities, *, iterations=10, gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=80,
          bilateral_srgb=13, bilateral_compat=10)
dense_crf_labels(image, labels, *, n_labels, confidence=0.7, iterations=10)
dense_crf_maps(image, maps, *, background='power', alpha=4, level=0.3, power=1)
pamr(image, masks, *, iterations=10, dilations=(1, 2, 4, 8, 12, 24))
cam(features, class_weights)
normalize_maps(maps, eps=1e-5)
merge_scales(per_scale, image_size)
select_prototypes(centers, class_weights, class_index, *, threshold, keep)
lpcam(features, class_prototypes, context_prototypes)
semantic_structure(features, *, blocks=2)
ssa(maps, features_stage4, features_stage5)
self_correlation(features)
split_rectangles(centers, image_size)
hspp(features, *, gamma=2.0, splits=(1, 2, 4))
visual_words(features, codebook)
reactivation_loss(features, class_weights, second_weights, tags)
aamr_loss(logits, pseudo_labels, saliency, *, alpha=0.08)
colour_walk(maps, image, *, radius=5, sigma=0.03, steps=64)
contrast(image, *, radius=12, side="both")
local_contrast(maps, image, *, radius=12, side="both")
minimum_barrier_saliency(image, *, max_side=300, passes=3)
upsample_maps(maps, size)
maps_to_labels(maps, labels, threshold)
with_least(labels, maps, classes, least)
relative_margin(scores)
background_loss(logits, saliency, valid=None)
conflict_temperature(labels, saliency, valid=None)
cross_entropy(logits, labels, weights=None)
constrain_to_tags(probabilities, tags)
predict_probabilities(model, image, *, scales=(1.0,), flip=True, device='cpu')
AutoThreshold(thresholds=100, *, levels=8, statistic='variance')
AutoThreshold.update(self, image, maps)
AutoThreshold.choose(self)
soft_dice(logits, labels)
balanced_cross_entropy(logits, labels, *, smoothing=0.4)
manipulated_maps(logits, classes, labels)
saliency_labels(maps, classes, saliency, *, theta=0.2, alpha=1e-6, beta=0.99999)
"""
STABLE_METRICS = """
ThresholdSweep(n_classes, bins=100)
ThresholdSweep.update(self, maps, classes, mask)
ThresholdSweep.compute(self)
confusion_matrix(prediction, target, n_classes, ignore_index=255)
mean_iou(confusion)
box_localization(maps, boxes)
boundary_iou(prediction, target, n_classes)
paired_bootstrap(first, second)
"""

#: Packages and files of version 0.1 that went elsewhere; nothing was released, so nothing stands in for them.
GONE = """
batch building classify comparison context crf_folder doctor evaluate grid image_scores in_order interfaces localize
memory method moving_average optim pairing planning predictor processes recipe refine rescore saliency segment
state_dict street submission terminal training weights workspace classify.model evaluate.scores localize.cam
localize.multi_scale refine.random_walk refine.dense_crf saliency.folder segment.losses data.transforms data.images
data.voc_layout data.partsworld_scene report.figures report.scores report.html cli.figures
"""


def calls(text: str) -> list[tuple[str, ast.arguments]]:
    """(name, arguments) of calls written one after the other."""
    unfolded = re.sub(r"\n\s+", " ", text.strip()).splitlines()
    made = []
    for line in unfolded:
        name, _, rest = line.partition("(")
        (definition,) = ast.parse(f"def f({rest}: ...").body
        assert isinstance(definition, ast.FunctionDef)
        made.append((name, definition.args))
    return made


@pytest.mark.parametrize(
    ("home", "name", "expected"),
    [
        pytest.param(home, *call, id=call[0])
        for home, text in ((functional, STABLE), (metrics, STABLE_METRICS))
        for call in calls(text)
    ],
)
def test_a_public_call_stays_as_it_is(home: Any, name: str, expected: ast.arguments) -> None:
    value = home
    for part in name.split("."):
        value = getattr(value, part)
    parameters = inspect.signature(value).parameters
    defaults = dict(zip([a.arg for a in expected.args][::-1], expected.defaults[::-1], strict=False))
    defaults |= {a.arg: d for a, d in zip(expected.kwonlyargs, expected.kw_defaults, strict=True) if d is not None}
    positional = [key for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional[: len(expected.args)] == [a.arg for a in expected.args]
    for argument in (*expected.args, *expected.kwonlyargs):
        default = parameters[argument.arg].default
        if argument.arg in defaults:
            assert default == ast.literal_eval(defaults[argument.arg])
        else:
            assert default is inspect.Parameter.empty
    for key in set(parameters) - {a.arg for a in (*expected.args, *expected.kwonlyargs)}:
        parameter = parameters[key]  # came later, or is none of those that are promised
        assert parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD


def test_every_public_function_is_among_them() -> None:
    assert {name for name, _ in calls(STABLE) if "." not in name} == set(functional.__all__)
    assert list(functional.__all__) == sorted(functional.__all__)


@pytest.mark.parametrize("name", functional.__all__)
def test_a_function_is_written_in_one_place_and_says_what_it_takes(name: str) -> None:
    value = getattr(functional, name)
    home = importlib.import_module(value.__module__)
    assert getattr(home, name) is value
    assert not value.__module__.startswith(("tagmask.functional", "tagmask.stages", "tagmask.pipeline"))
    assert "Args:" in (inspect.getdoc(value) or "")


@pytest.mark.parametrize("name", GONE.split())
def test_nothing_stands_in_for_a_module_that_moved(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"tagmask.{name}")


def test_code_on_the_pages_imports_what_is_there() -> None:
    seen = 0
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tagmask"):
                    module = importlib.import_module(str(node.module))
                    missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                    assert missing == [], page.name
                    seen += 1
    assert seen > 10


def test_the_page_of_functions_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "functional.md").read_text(encoding="utf-8")
    assert page == load_script("docs/tables/functional.py").write(page), "run: python docs/tables/functional.py"
    for name in functional.__all__:
        row = re.search(rf"^\| \[?`{name}`.*", page, flags=re.M)
        assert row, name
        assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", row[0])[1:5]), f"{name}: shapes are not documented"


def test_the_example_of_the_page_runs() -> None:
    page = (ROOT / "docs" / "functional.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.S)[0], names)
    assert names["mask"].shape == (20, 30)


#: Defaults that a function has from another published place than the method: IRNet's CRF of labels.
OTHERWISE = {("dense_crf_labels", "bilateral_sxy"), ("dense_crf_labels", "bilateral_srgb")}


def test_a_function_and_the_method_of_its_paper_have_the_same_defaults() -> None:
    """Else a recipe and a user of the function would not run the same."""
    kinds = get_args(registry.Kind)
    methods = [registry.get(kind, name) for kind in kinds for name in registry.entries(kind)]
    compared = 0
    functions = {name: getattr(functional, name) for name in functional.__all__}
    for name, function in {**functions, "restricted_activation_loss": restricted_activation_loss}.items():
        package = function.__module__.rpartition(".")[0]
        for method in (one for one in methods if one.__module__.rpartition(".")[0] == package):
            for parameter in inspect.signature(function).parameters.values():
                field = method.model_fields.get(parameter.name)
                if field is None or parameter.default is inspect.Parameter.empty or (name, parameter.name) in OTHERWISE:
                    continue
                assert parameter.default == field.get_default(call_default_factory=True), f"{name}: {parameter.name}"
                compared += 1
    assert compared >= 50


def test_irnets_losses_reach_as_far_as_its_recipe_says() -> None:
    """The walk has a radius of its own, 5."""
    default = inspect.signature(irnet_losses).parameters["radius"].default
    assert default == IRNet.model_fields["pair_radius"].default == 10
