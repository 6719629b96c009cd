"""The typed recipe: one settings model per stage, methods resolved through the registry, YAML in and out.

Unknown keys, methods and values are errors of one line that offer the nearest right name. Relative paths in
a recipe file are relative to that file; those in ``key=value`` overrides to the current folder.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from tagmask import registry
from tagmask.errors import RecipeError, nearest
from tagmask.method import Method

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of all stage settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _method_field(kind: registry.Kind) -> Any:
    def check(value: Any) -> Any:
        return value if isinstance(value, BaseModel) else build_method(kind, value, where=kind, base=Path())

    return Annotated[Any, BeforeValidator(check), PlainSerializer(_dump_method)]


def _dump_method(value: Any) -> Any:
    return value.dump() if isinstance(value, Method) else value.model_dump(mode="json")


class EngineSettings(Settings):
    """Where and how to compute. Results do not depend on ``devices`` in image-wise stages."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Positive = 1
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    threads: Positive | None = Field(None, description="CPU threads per process; null: torch's default")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="loader processes per rank")
    checkpoint_overhead: Fraction = Field(
        0.05, description="share of training time spent on checkpoints; small models save at every step"
    )


class OptimizerSettings(Settings):
    """Optimiser, parameter groups and schedule (methods.md 1.1).

    ``momentum: null`` with ``sgd`` is the published code's quirk: its helper passes the weight decay into the
    momentum slot, so the effective momentum equals ``weight_decay``.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = Field(1e-4, description="rate of pretrained (backbone) parameters")
    head_lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="rate of new parameters")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = 0.9
    schedule: Literal["poly", "one_cycle", "constant"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class AugmentSettings(Settings):
    """Training augmentation.

    ``resized_crop``: a random part of the image (area share ``scale``, aspect ``ratio``) resized to ``crop``.
    ``long_side``: the long side resized to a random length in ``long_side``, then a random ``crop`` with the
    missing area filled with the mean colour (IRNet and all that build on it).
    ``scale_crop``: the image scaled by a random factor of ``scale``, then a random ``crop`` (segmentation).
    """

    kind: Literal["resized_crop", "long_side", "scale_crop"] = "resized_crop"
    crop: Positive = 224
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)
    long_side: tuple[int, int] = (320, 640)
    flip: bool = True
    colour_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.2


class ClassifySettings(Settings):
    """The tag classifier."""

    backbone: str = Field("resnet10t", description="any timm model with features_only")
    backbone_args: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    weights: Path | Literal["timm"] | None = Field(None, description="safetensors file, 'timm', or none")
    output_stride: Literal[8, 16, 32] = 16
    dilate: bool = Field(True, description="false: stride removed without dilation (IRNet's ResNet-50)")
    head: _method_field("head") = Field(default="gap", validate_default=True)
    epochs: Positive = 5
    batch_size: Positive = 16
    batch_norm: Literal["eval", "train"] = Field("eval", description="eval: running statistics, never updated")
    freeze: Annotated[int, Field(ge=0)] = Field(
        0, description="number of first backbone stages that get no gradient (1: stem, 3: up to layer2)"
    )
    validations: Positive = Field(5, description="how often to validate over the training")
    augment: AugmentSettings = AugmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()


class LocalizeSettings(Settings):
    """Activation maps; scales and flip serve every localizer."""

    method: _method_field("localizer") = Field(default="cam", validate_default=True)
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0, 0.5, 1.5, 2.0), min_length=1)
    flip: bool = True


class RefineSettings(Settings):
    """A chain of refiners; the last one makes labels."""

    chain: tuple[_method_field("refiner"), ...] = Field(default=("threshold",), validate_default=True, min_length=1)


class SegmentSettings(Settings):
    """The segmentation network, trained on pseudo masks (weak), real masks (full), or one of each (both)."""

    network: _method_field("network") = Field(default="deeplabv3plus", validate_default=True)
    supervision: Literal["weak", "full", "both"] = "weak"
    epochs: Positive = 10
    batch_size: Positive = 8
    batch_norm: Literal["eval", "train"] = "train"
    augment: AugmentSettings = AugmentSettings(kind="scale_crop", crop=224, scale=(0.75, 1.5))
    optimizer: OptimizerSettings = OptimizerSettings(lr=2e-4, head_lr=1e-3)
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0,), min_length=1)
    flip: bool = True


class EvaluateSettings(Settings):
    """What is measured where; ground truth is opened here only."""

    thresholds: Annotated[int, Field(ge=2, le=4096)] = 100
    average: Literal["occurring", "union"] = Field(
        "occurring", description="mean over classes in the split's ground truth, or in truth or prediction"
    )
    full_run: Path | None = Field(None, description="a run with full supervision, for the ratio")


class Recipe(Settings):
    """Everything that determines a run."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.-]+$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    data: _method_field("data") = Field(default="partsworld", validate_default=True)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    classify: ClassifySettings = Field(default_factory=ClassifySettings)
    localize: LocalizeSettings = Field(default_factory=LocalizeSettings)
    refine: RefineSettings = Field(default_factory=RefineSettings)
    segment: SegmentSettings | None = Field(default_factory=SegmentSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    def dump(self) -> dict[str, Any]:
        """The recipe as plain YAML/JSON values with every default written out, in the form it is read."""
        values = self.model_dump(mode="json")
        localize = values["localize"]
        values["localize"] = {**localize.pop("method"), **localize}
        values["refine"] = values["refine"]["chain"]
        if values["segment"]:
            segment = values["segment"]
            network = segment.pop("network")
            values["segment"] = {"network": network, **segment}
        values["data"] = {"format": _format_name(self.data), **values["data"]}
        return values

    def to_yaml(self) -> str:
        """The recipe as YAML."""
        return yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)


def _format_name(data: Any) -> str:
    where = f"{type(data).__module__}:{type(data).__name__}"
    return next((name for name, entry in registry.entries("data").items() if entry.where == where), where)


# -- reading ------------------------------------------------------------------------------------------------


class _OverrideText(str):
    """Text that came from the command line: as a path it is relative to the current folder."""


def load_recipe(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides.

    Args:
        source: path of a YAML file, a mapping, or a recipe.
        overrides: dotted keys, values in YAML ("classify.epochs=3", "refine.threshold.value=0.3").

    Raises:
        RecipeError: one line with the key and the nearest right name.
    """
    if isinstance(source, Recipe):
        raw, base, where = source.dump(), Path.cwd(), source.name
    elif isinstance(source, Mapping):
        raw, base, where = _plain(source), Path.cwd(), "recipe"
    else:
        path = Path(source)
        raw, base, where = _read_yaml(path), path.resolve().parent, str(path)
        raw.setdefault("name", path.stem)
    for override in overrides:
        _apply_override(raw, override)
    return _build(raw, base, where)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _read_yaml(path: Path, depth: int = 0) -> dict[str, Any]:
    """A YAML file as a mapping; ``extends: other.yaml`` is merged below it."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"{path}: cannot read the recipe ({error.strerror}). Check the path, or see 'tagmask recipe list'."
        raise RecipeError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        msg = f"{path}: not valid YAML: {text}"
        raise RecipeError(msg) from error
    if not isinstance(raw, dict):
        msg = f"{path}: a recipe is a mapping of keys, this is {type(raw).__name__}"
        raise RecipeError(msg)
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if depth > 8:
        msg = f"{path}: 'extends' goes round in circles"
        raise RecipeError(msg)
    return _merge(_read_yaml(path.resolve().parent / str(parent), depth + 1), raw)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        msg = f"'{override}' is not an override; write key=value, such as classify.epochs=3"
        raise RecipeError(msg)
    try:
        value = yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        value = text
    value = _OverrideText(value) if isinstance(value, str) else value
    node: Any = raw
    for depth, part in enumerate(keys[:-1]):
        node = _step_into(node, part, ".".join(keys[: depth + 1]))
    if isinstance(node, list):
        node[_list_index(node, keys[-1], key)] = value
    else:
        node[keys[-1]] = value


def _step_into(node: Any, part: str, so_far: str) -> Any:
    """The container behind one key; a method's short form ('cam') becomes {'name': 'cam'} on the way."""
    index: Any = _list_index(node, part, so_far) if isinstance(node, list) else part
    child = node[index] if isinstance(node, list) else node.get(index)
    if child is None:
        child = {}
    elif isinstance(child, str):
        child = {"name": child}
    elif not isinstance(child, dict | list):
        msg = f"{so_far} holds the value {child!r} and has no keys below it"
        raise RecipeError(msg)
    node[index] = child
    return child


def _list_index(items: list[Any], part: str, so_far: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [item if isinstance(item, str) else str(item.get("name")) for item in items]
    if part in names:
        return names.index(part)
    msg = f"{so_far}: no item '{part}' in the list. {nearest(part, names)}"
    raise RecipeError(msg)


# -- building -----------------------------------------------------------------------------------------------


def _build(raw: dict[str, Any], base: Path, where: str) -> Recipe:
    values = dict(raw)
    for key in values:
        if key not in Recipe.model_fields:
            msg = f"{where}: unknown key '{key}'. {nearest(key, Recipe.model_fields)}"
            raise RecipeError(msg)
    values["data"] = _build_data(values.get("data", "partsworld"), base, where)
    if "localize" in values:
        values["localize"] = _split_method(values["localize"], LocalizeSettings, "method")
    if "refine" in values:
        chain = values["refine"]
        values["refine"] = {"chain": chain if isinstance(chain, list) else [chain]}
    kinds: tuple[tuple[str, str, registry.Kind], ...] = (
        ("classify", "head", "head"), ("localize", "method", "localizer"), ("segment", "network", "network"),
    )
    for section, key, kind in kinds:
        block = values.get(section)
        if isinstance(block, dict) and key in block:
            prefix = section if key == "method" else f"{section}.{key}"
            built = build_method(kind, block[key], where=f"{where}: {prefix}", base=base)
            values[section] = {**block, key: built}
    if "refine" in values:
        values["refine"] = {"chain": tuple(
            build_method("refiner", item, where=f"{where}: refine", base=base) for item in values["refine"]["chain"]
        )}
    return _validate(Recipe, values, base, where, "")


def _split_method(value: Any, settings: type[Settings], key: str) -> dict[str, Any]:
    """{'name': 'cam', 'scales': ..., own settings} -> {'method': {'name': 'cam', own}, 'scales': ...}."""
    if not isinstance(value, dict):
        return {key: value}
    stage = {name: item for name, item in value.items() if name in settings.model_fields and name != key}
    own = {name: item for name, item in value.items() if name not in stage}
    own.setdefault("name", settings.model_fields[key].default)
    return {key: own, **stage}


def _build_data(value: Any, base: Path, where: str) -> Any:
    if isinstance(value, BaseModel):
        return value
    settings = {"format": value} if isinstance(value, str) else dict(value)
    chosen = settings.pop("format", settings.pop("name", "auto"))
    if chosen == "auto":
        from tagmask.data.detect import detect_format

        root = settings.get("root")
        if root is None:
            msg = f"{where}: data.root is missing; name the folder of your images, or data.format=partsworld"
            raise RecipeError(msg)
        chosen = detect_format(_absolute(root, base))
    return build_method("data", {"name": chosen, **settings}, where=f"{where}: data", base=base)


def build_method(kind: registry.Kind, value: Any, *, where: str, base: Path) -> Any:
    """Make a method from its recipe form: a name, or a mapping with ``name`` and its settings.

    Raises:
        UnknownNameError: no such method.
        RecipeError: a setting is unknown or wrong.
    """
    if isinstance(value, BaseModel):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        msg = f"{where}: expected the name of a {kind} or a mapping with 'name', got {value!r}"
        raise RecipeError(msg)
    settings = {key: item for key, item in value.items() if key != "name"}
    return _validate(registry.get(kind, str(value["name"]), where=where), settings, base, where, "")


def _validate(model: Any, values: dict[str, Any], base: Path, where: str, prefix: str) -> Any:
    _check_keys(values, model, where, prefix)
    try:
        return model.model_validate(_absolute_paths(model, values, base))
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + ".".join(str(part) for part in first["loc"])
        given = f" (got {first['input']!r})" if first["type"] != "missing" else ""
        msg = f"{where}: {key or 'recipe'}: {first['msg']}{given}"
        raise RecipeError(msg) from error


def _check_keys(values: Mapping[str, Any], model: type[BaseModel], where: str, prefix: str) -> None:
    """Unknown keys at any depth, before types are looked at: a typo should be called a typo."""
    for key, value in values.items():
        if key not in model.model_fields:
            msg = f"{where}: unknown key '{prefix}{key}'. {nearest(key, model.model_fields)}"
            raise RecipeError(msg)
        inner = _settings_type(model.model_fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            _check_keys(value, inner, where, f"{prefix}{key}.")


def _settings_type(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *typing.get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _absolute(value: Any, base: Path) -> Path:
    start = Path.cwd() if isinstance(value, _OverrideText) else base
    path = Path(value).expanduser()
    return path if path.is_absolute() else Path(start / path).resolve()


def _absolute_paths(model: type[BaseModel], values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Join relative paths to their base wherever a field takes a Path (and the text is no other choice of it)."""
    result = dict(values)
    for key, value in values.items():
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        options = {annotation, *typing.get_args(annotation)}
        literals = {choice for option in options for choice in typing.get_args(option) if isinstance(choice, str)}
        if isinstance(value, str | Path) and Path in options and str(value) not in literals:
            result[key] = str(_absolute(value, base))
        elif isinstance(value, Mapping) and (inner := _settings_type(annotation)) is not None:
            result[key] = _absolute_paths(inner, value, base)
    return result
