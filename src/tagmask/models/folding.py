"""Batch norms folded into the convolutions before them: the same function in evaluation, with less to read and write.

A batch norm that uses its running statistics is a factor and an offset per channel, which the convolution's weight and
bias can hold. Which convolution a batch norm follows is seen by running the network once, not guessed from the order
of its modules; pairs are left alone when anything else sees the convolution's output, or where either is shared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # exactly these: others do things with their weights first
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def fold_batch_norms(model: nn.Module, example: Tensor) -> int:
    """Fold in place what can be folded; outputs change by rounding errors alone. For evaluation only.

    Args:
        model: in eval mode, on the CPU, in float32.
        example: what the model takes; it is called once with it.

    Returns:
        How many batch norms are gone. Parameters keep their names, but those of the batch norms are gone as well.
    """
    pairs = _pairs(model, example)
    for norm, convolution in pairs.items():
        _absorb(convolution, norm)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if child in pairs:
                assert isinstance(child, nn.BatchNorm2d)
                module.register_module(name, _what_is_left(child))
    return len(pairs)


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, by identity, how many operations take each tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        ids = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self.counts.update(ids)
        return func(*args, **(kwargs or {}))


def _pairs(model: nn.Module, example: Tensor) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Batch norms, each with the convolution that it alone follows, as a run of the model shows."""
    results: dict[nn.Conv2d, list[Tensor]] = {}  # kept until the end, so that no two have the same identity
    inputs_of: dict[nn.BatchNorm2d, list[Tensor]] = {}
    uses = _Uses()

    def convolved(module: nn.Module, _: Any, output: Tensor) -> None:
        results.setdefault(module, []).append(output)  # type: ignore[arg-type]
        uses.counts[id(output)] = 0  # what had this identity before is gone

    def normed(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs_of.setdefault(module, []).append(inputs[0])  # type: ignore[arg-type]

    owners = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    with ExitStack() as stack:
        for module in model.modules():
            # Weights that two modules share would be changed for the other as well; hooks may look at what is folded
            # away.
            alone = all(owners[id(parameter)] == 1 for parameter in module.parameters(recurse=False))
            if not alone or module._forward_hooks or module._forward_pre_hooks:
                continue
            if type(module) in _CONVOLUTIONS:
                stack.enter_context(module.register_forward_hook(convolved))
            elif type(module) in _NORMS and not module.training and module.running_mean is not None:
                stack.enter_context(module.register_forward_pre_hook(normed))
        stack.enter_context(torch.no_grad())
        stack.enter_context(uses)
        # What a classifier returns is no container that is known to torch: its features may be given away as well.
        output = model(example)
        given_away = tree_leaves(vars(output) if is_dataclass(output) else output)
        uses.counts.update(id(leaf) for leaf in given_away)
    # By identity: a batch norm follows a convolution if it is handed that very tensor, every time both are called.
    source = {id(output): convolution for convolution, outputs in results.items() for output in outputs}
    pairs = {}
    for norm, inputs in inputs_of.items():
        convolution = source.get(id(inputs[0]))
        if convolution is None or {id(tensor) for tensor in inputs} != {id(tensor) for tensor in results[convolution]}:
            continue
        # Anybody else who reads the convolution's output (a shortcut, a returned feature) would get the folded one.
        if all(uses.counts[id(tensor)] == 1 for tensor in inputs):
            pairs[norm] = convolution
    return pairs


def _absorb(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        # In float64 to the end: the product of two rounded factors would be off by more than the rounding of one.
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        bias = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
        bias = bias * factor if norm.bias is None else bias * factor + norm.bias
        weight = convolution.weight * factor[:, None, None, None]
        kind = convolution.weight.dtype
        convolution.weight = nn.Parameter(weight.to(kind), requires_grad=False)
        convolution.bias = nn.Parameter(bias.to(kind), requires_grad=False)


def _what_is_left(norm: nn.BatchNorm2d) -> nn.Module:
    """timm's batch norms have their activation inside."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
