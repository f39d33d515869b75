"""The input and the following activation of every weight layer, recorded during a forward (also on meta).

Notable:
- A torch function mode sees all calls: modules, `torch.relu(x)` and `F.linear(x, self.w)` alike.
- A tensor is described by what produced it: data, an activation, a norm, a weight layer, a sum; views and
  poolings pass that on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LAYERS = {
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip
NORMS = {"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"}
ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish",
    "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh", "tanhshrink",
}  # fmt: skip
PASSING = {
    "flatten", "view", "reshape", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "contiguous",
    "__getitem__", "dropout", "dropout2d", "max_pool2d", "max_pool1d", "avg_pool2d", "adaptive_avg_pool2d",
    "interpolate", "pad", "mean", "clone", "to", "float", "chunk", "split", "unbind", "cat", "concat",
}  # fmt: skip
SUMS = {"add", "__add__", "__radd__", "__iadd__"}


@dataclass
class PlacedLayer:
    """One weight layer: what it reads, which activation follows, whether a norm comes between.

    `reads` and `ahead` are activations' names, or "norm", "sum", "data", "linear"; `ahead` is "" if only a
    sum or the end follows. `depth`: the number of weight layers from the input to this one.
    """

    weight: str
    bias: str
    reads: str
    ahead: str = ""
    normed: bool = False
    depth: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class Origin:
    """What produced a tensor: the kind, the layer whose output it still is, and the depth so far."""

    kind: str
    layer: PlacedLayer | None = None
    depth: int = 0


DATA = Origin("data")


class Flow(TorchFunctionMode):
    """The mode: `layers` maps the names of weights to their layers, in the order of the calls."""

    def __init__(self, modules: nn.Module | None = None) -> None:
        super().__init__()
        self.layers: dict[str, PlacedLayer] = {}
        self.names: dict[int, str] = {}
        self._modules: list[nn.Module] = []  # kept alive, so that ids stay unique
        self._origins: dict[int, tuple[Tensor, Origin]] = {}  # the tensor is kept alive with its id
        if modules is not None:
            self.know(modules)

    def know(self, module: nn.Module, prefix: str = "") -> None:
        """Register a module's parameters, so that its layers have names."""
        self._modules.append(module)
        for name, parameter in module.named_parameters(prefix):
            self.names.setdefault(id(parameter), name)

    def depth(self, tensor: Any) -> int:
        """The number of weight layers from the input to a tensor."""
        return self._origin(tensor).depth if isinstance(tensor, Tensor) else 0

    def deepen(self, tensor: Any, layers: int) -> None:
        """Add `layers` to a tensor's depth, for repeats that were not run."""
        if isinstance(tensor, Tensor):
            origin = self._origin(tensor)
            self._origins[id(tensor)] = (tensor, replace(origin, depth=origin.depth + layers))

    def repeat(self, model: str, names: Sequence[str], step: int) -> None:
        """Copy the layers of the module `model` to the modules `names`, each `step` layers deeper."""
        seen = [layer for weight, layer in self.layers.items() if weight.startswith(f"{model}.")]
        for turn, name in enumerate(names, 1):
            for layer in seen:
                own, bias = (n and name + n[len(model) :] for n in (layer.weight, layer.bias))
                self.layers[own] = replace(layer, weight=own, bias=bias, depth=layer.depth + turn * step)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call, then record what the results are."""
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").rstrip("_") if not _dunder(func) else func.__name__
        tensors = _tensors((*args, *(kwargs or {}).values()))
        made = _tensors((out,))
        if tensors and made:
            origin = self._seen(name, tensors)
            for tensor in made:
                self._origins[id(tensor)] = (tensor, origin)
        return out

    def _origin(self, tensor: Tensor) -> Origin:
        return self._origins.get(id(tensor), (tensor, DATA))[1]

    def _seen(self, name: str, tensors: list[Tensor]) -> Origin:
        before = self._origin(tensors[0])
        if name in LAYERS and len(tensors) > 1:
            return self._layer(name, tensors, before)
        if name in NORMS:
            if before.layer:
                before.layer.normed = True
            return Origin("norm", before.layer, before.depth)
        if name in ACTIVATIONS:
            if before.layer and not before.layer.ahead:
                before.layer.ahead = name
            return Origin(name, None, before.depth)
        depth = max(self._origin(t).depth for t in tensors)
        if name in PASSING:
            kinds = {self._origin(t).kind for t in tensors}
            return Origin(before.kind if len(kinds) == 1 else "sum", before.layer, depth)
        return Origin("sum" if name in SUMS else "data", None, depth)

    def _layer(self, name: str, tensors: list[Tensor], before: Origin) -> Origin:
        weight = self.names.get(id(tensors[1]), "")
        if not weight:
            return Origin("linear", None, before.depth + 1)
        bias = self.names.get(id(tensors[2]), "") if len(tensors) > 2 else ""
        new = PlacedLayer(weight, bias, before.kind, depth=before.depth + 1, transposed="transpose" in name)
        return Origin("linear", self.layers.setdefault(weight, new), before.depth + 1)


def _dunder(func: Callable[..., Any]) -> bool:
    return getattr(func, "__name__", "").startswith("__")


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value))
    return found
