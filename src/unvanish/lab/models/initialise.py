"""Initialisation of networks: weights sized by the following activation, so that the gradient keeps its size.

Notable:
- `critical` (default): a layer maps its input (unit power after a norm or of the data, or <phi^2>_q after an
  activation) to the length q at which the activation after it is critical: gain^2 = (q - sb^2) / power,
  weights of variance gain^2 / fan_in, biases of deviation sb.
- `he`: gain^2 / fan_in by the activation after the layer; `xavier`: 2 / (fan_in + fan_out); `torch`:
  PyTorch's own. All except `torch` and `critical` zero the biases.
- A critical sigmoid net is a critical tanh net rewritten: weights times 4, biases that remove the mean.
- Very deep nets of tanh and similar functions get orthogonal matrices and delta-orthogonal kernels, whose
  singular values are all equal; independent weights have a spectrum that widens with depth.
- A block with its own rules (open gates, orthogonal recurrence, a last norm that starts at zero) has a method
  `initialise(self, begin: Begin) -> None`. It is called after the layers have been drawn, children before
  parents, for every method except `torch`; `begin.safe` is True only for `critical`.

References: Glorot and Bengio 2010; He et al. 2015; Schoenholz et al. 2017; Xiao et al. 2018; Goyal et al.
2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks import activations
from unvanish.lab.models.flow import PlacedLayer
from unvanish.theory.activations import ALIASES, NAMES
from unvanish.theory.initialisers import Start, start
from unvanish.theory.meanfield import field

METHODS = ("critical", "he", "xavier", "torch")
HE = ("sigmoid", "tanh", "relu", "leaky_relu", "selu")
NARROW = ("tanh", "hardtanh", "softsign")  # bounded functions, whose depth the spectrum limits
ORTHOGONAL_FROM = 20  # layers
ZERO_BRANCHES_FROM = 12  # residual branches


@dataclass(frozen=True)
class Begin:
    """What a block's `initialise` gets: method, the net's activation, residual branches, time steps."""

    method: str = "critical"
    activation: str = "relu"
    depth: int = 0
    length: int | None = None

    @property
    def safe(self) -> bool:
        """Whether gates should open and recurrences be orthogonal: the method is critical."""
        return self.method == "critical"

    @property
    def zero_branches(self) -> bool:
        """Whether residual branches should start at zero: deep enough, and the method is critical."""
        return self.safe and self.depth >= ZERO_BRANCHES_FROM

    @torch.no_grad()
    def end_branch(self, last: nn.Module, always: bool = False) -> None:
        """Zero the weight that ends a residual branch (of a norm or a layer), if the method requires it.

        In deep networks, or `always`, for a branch without a norm: the block starts as the identity.
        """
        if self.zero_branches or (always and self.safe):
            weight = last.weight
            assert isinstance(weight, Tensor)
            weight.zero_()

    def layer(self, layer: nn.Module, reads: str = "norm", ahead: str = "", factor: float = 1.0) -> None:
        """Redraw one `nn.Linear` or convolution, times `factor`.

        `reads`, `ahead`: the activation before and after it, or "norm", "data", "sum" and "" (nothing).
        """
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        seen = PlacedLayer("", "", reads, ahead)
        draw(weight, bias if isinstance(bias, Tensor) else None, seen, self.method, 1, factor)


def method(name: str) -> str:
    """The name if it is a method, else ValueError with the nearest one."""
    if name not in METHODS:
        raise ValueError(f"no init {name!r}{suggest(name, METHODS)}; there are {', '.join(METHODS)}")
    return name


def initialise(net: nn.Module, layers: Mapping[str, PlacedLayer], begin: Begin) -> None:
    """Redraw the weight layers of `net`, as `Flow` recorded them, then apply the rules of its blocks."""
    if method(begin.method) == "torch":
        return
    parameters = dict(net.named_parameters())
    deepest = max((layer.depth for layer in layers.values()), default=0)
    for name, layer in layers.items():
        draw(parameters[name], parameters.get(layer.bias), layer, begin.method, deepest)
    for module in reversed(list(net.modules())):
        own = getattr(type(module), "initialise", None)
        if own is not None:
            own(module, begin)


@torch.no_grad()
def draw(
    weight: Tensor, bias: Tensor | None, layer: PlacedLayer, how: str, deepest: int, factor: float = 1.0
) -> None:
    """Redraw one layer: weight (out, in, *kernel), bias (out,)."""
    fan_in = weight[:, 0].numel() if layer.transposed else weight[0].numel()
    if how == "torch":
        return
    if how == "xavier":
        fan_out = weight.numel() // weight.shape[1 if not layer.transposed else 0]
        gain, deviation = math.sqrt(2 * fan_in / (fan_in + fan_out)), 0.0
    elif how == "he":
        gain, deviation = he_gain(layer.ahead), 0.0
    else:
        layer, sigmoid = _as_tanh(layer, bias is not None), layer
        gain, deviation = critical_gain(layer, deepest)
    if how == "critical" and layer.reads in NARROW and deepest > ORTHOGONAL_FROM and square(weight):
        isometric(weight, gain * factor)
    else:
        weight.normal_(0.0, gain * factor / math.sqrt(fan_in))
    if bias is not None:
        bias.normal_(0.0, deviation * factor) if deviation else bias.zero_()
    if how == "critical" and sigmoid is not layer:
        _rescale_to_sigmoid(weight, bias, sigmoid)


def _as_tanh(layer: PlacedLayer, biased: bool) -> PlacedLayer:
    """The layer of the equivalent tanh net if it stands between sigmoids, else itself."""
    if layer.normed or not biased or "sigmoid" not in (layer.reads, layer.ahead):
        return layer
    reads, ahead = ("tanh" if kind == "sigmoid" else kind for kind in (layer.reads, layer.ahead))
    return replace(layer, reads=reads, ahead=ahead)


def _rescale_to_sigmoid(weight: Tensor, bias: Tensor | None, layer: PlacedLayer) -> None:
    """Rewrite tanh(W t + b) in sigmoids: t = 2 s - 1 for the input, sigmoid(2 z) for tanh(z)."""
    assert bias is not None
    if layer.ahead == "sigmoid":
        weight.mul_(2)
        bias.mul_(2)
    if layer.reads == "sigmoid":
        bias.sub_(weight.sum(tuple(range(1, weight.ndim))) if not layer.transposed else 0)
        weight.mul_(2)


def he_gain(ahead: str) -> float:
    """The gain for the activation after a layer, sqrt 2 for ReLU and similar (He et al. 2015, eq. 10 and 15).

    Others are those of `nn.init.calculate_gain`: 5/3 for tanh, 1 for sigmoid; 1 if nothing follows.
    """
    name = _plain(ahead)
    if name == "identity":
        return 1.0
    known: Any = name
    return nn.init.calculate_gain(known) if name in HE else math.sqrt(2)


def critical_gain(layer: PlacedLayer, deepest: int) -> tuple[float, float]:
    """(gain, deviation of the biases) of a layer between two activations in a net of `deepest` layers."""
    source = _plain(layer.reads)
    ahead = start(_plain(layer.ahead), deepest)
    if layer.normed:  # the norm divides the size out; it only has to start at one
        return power_of(source, 1.0) ** -0.5, 0.0
    before = start(source, deepest)
    if source == _plain(layer.ahead) and source != "identity":
        return before.sw, before.sb
    reads = 1.0 if source == "identity" else before.power
    wanted = _length(ahead)
    return math.sqrt(wanted / reads), ahead.sb if layer.ahead else 0.0


def _length(ahead: Start) -> float:
    return max(ahead.q - ahead.sb**2, 0.1 * ahead.q)


@lru_cache(maxsize=256)
def power_of(name: str, q: float) -> float:
    """<phi^2> at inputs of variance q."""
    return field(name).power(q)


def _plain(kind: str) -> str:
    known = activations.ALIASES.get(kind, ALIASES.get(kind, kind))
    return known if known in NAMES and known != "linear" else "identity"


def square(weight: Tensor) -> bool:
    """Whether a weight can be an isometry: at least as many outputs as inputs, odd kernels."""
    return weight.shape[0] >= weight.shape[1] and all(k % 2 for k in weight.shape[2:])


def isometric(weight: Tensor, gain: float) -> None:
    """Fill with gain times an orthogonal matrix, for kernels at the centre tap (Xiao et al. 2018)."""
    rows, columns = weight.shape[:2]
    matrix = torch.empty(rows, columns, dtype=weight.dtype, device=weight.device)
    nn.init.orthogonal_(matrix, gain * max(1.0, (rows / columns) ** 0.5))
    weight.zero_()
    middle: Any = (slice(None), slice(None), *(k // 2 for k in weight.shape[2:]))
    weight[middle] = matrix
