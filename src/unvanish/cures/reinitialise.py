"""Redraws the weights at the size at which this activation keeps the gradient.

What it does

Weights get variance gain^2/fan_in, biases deviation `bias` (0 by default). The gain and the bias are the
critical point of the activation the layer reads: sw^2 <phi'^2>_q = 1, sb^2 = q - sw^2 <phi^2>_q, for ReLU
He's sqrt 2. The first layer is sized by the data it reads, the output layer so that its outputs are of size
one. `method`: "gaussian"; "orthogonal" (all singular values equal, in place of a spectrum that widens with
depth); "delta-orthogonal" for convolutions: an orthogonal matrix at the kernel's centre, zeros around it.
That is an isometry; `nn.init.orthogonal_` on the flattened kernel is not.

Safety

For untrained models only: it discards the weights.

References: He et al. 2015; Schoenholz et al. 2017; Saxe et al. 2014; Xiao et al. 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.anatomy import Anatomy, Layer, round_digits
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery
from unvanish.theory.activations import ALIASES, NAMES
from unvanish.theory.initialisers import Start, start

SAFETY = "retrain"
METHODS = ("gaussian", "orthogonal", "delta-orthogonal")
NARROW = ("tanh", "hardtanh", "softsign", "erf")  # bounded functions, whose depth the spectrum limits
EVERYWHERE = 12  # a finding that names this many sites means all of them


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """One remedy for each gain: the layers the finding names, or all of them."""
    anatomy = Anatomy(trace)
    wide = not remedy.targets or len(remedy.targets) >= EVERYWHERE or remedy.parameters.get("gain") == "auto"
    chosen = (
        anatomy.layers if wide else anatomy.before(remedy.targets, 3 if remedy.parameters.get("parts") else 1)
    )
    depth = len(anatomy.on_axis())
    groups: dict[tuple[float, float, str, bool], list[str]] = {}
    known = {name for layer in anatomy.layers for name in (layer.label, layer.module, *layer.parameters)}
    loose = [trace.sites[i] for i in trace.where("parameter", trainable=True)]
    if named := [s.path for s in loose if s.path in {*remedy.targets} - known and len(s.facts["shape"]) > 1]:
        groups[1.0, 0.0, "gaussian", False] = named  # factors of a product, as of a low-rank part
    for layer in chosen:
        if layer.trainable:
            key = (*choose_gain(layer, depth, anatomy.layers), layer.computed)
            groups.setdefault(key, []).append(layer.weight)
    for (gain, bias, method, computed), names in groups.items():
        settings = {"gain": gain, "bias": bias, "method": method}
        if computed:
            settings["parametrized"] = True
        yield replace(remedy, targets=tuple(names), parameters=settings, safety="retrain")


def choose_gain(layer: Layer, depth: int, layers: list[Layer]) -> tuple[float, float, str]:
    """(gain, deviation of the biases, method) for one layer."""
    here = _start(layer.source, depth)
    if layer.head:
        gain = here.power**-0.5 if layer.source not in ("", "norm") else 1.0
        return round_digits(gain), 0.0, "gaussian"
    ahead = _start(layer.activation, depth)
    if math.isfinite(layer.reads) and layer.reads > 0:
        return (
            round_digits(math.sqrt(max(ahead.q - ahead.sb**2, 0.1 * ahead.q)) / layer.reads),
            round_digits(ahead.sb),
            "gaussian",
        )
    if layer.source in ("", "norm"):
        return (
            round_digits(math.sqrt(max(ahead.q - ahead.sb**2, 0.1))) if layer.source else 1.0,
            0.0,
            "gaussian",
        )
    method = "gaussian"
    if layer.fan_in and depth > 20 and layer.source in NARROW:
        method = "delta-orthogonal" if layer.kind.startswith("conv") else "orthogonal"
    return round_digits(here.sw), round_digits(here.sb), method


def _start(kind: str, depth: int) -> Start:
    known = ALIASES.get(kind, kind)
    return start(known if known in NAMES else "", depth)


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    gain: float = 1.0,
    bias: float = 0.0,
    method: str = "gaussian",
    parametrized: bool = False,
) -> None:
    """Fill the weights `targets` and their biases; `parametrized`: their modules compute them."""
    if method not in METHODS:
        raise SurgeryError(f"reinitialise: no method {method!r}; use one of {', '.join(METHODS)}")
    for name in targets:
        weight = surgery.parameter(name)
        if weight.ndim < 2:
            raise SurgeryError(f"reinitialise: {name} has shape {tuple(weight.shape)}, not a layer's weight")
        chosen = method if can_be_drawn(weight, method) else "gaussian"
        surgery.fill(name, draw_weights(surgery, weight, gain, chosen), f"{chosen} weights of gain {gain:g}")
        other = bias_of(surgery, name)
        if other:
            p = surgery.parameter(other)
            surgery.fill(other, bias * surgery.normal(p), f"biases of deviation {bias:g}")


def bias_of(surgery: Surgery, weight: str) -> str:
    """The name of the bias that belongs to a weight, or an empty text."""
    owner, _, leaf = weight.rpartition(".")
    wanted = leaf.replace("weight", "bias")
    found = dict(surgery.module(owner).named_parameters(recurse=False)) if surgery.has(owner) else {}
    return f"{owner}.{wanted}".lstrip(".") if wanted != leaf and wanted in found else ""


def can_be_drawn(weight: Tensor, method: str) -> bool:
    """Whether a method can draw a weight: orthogonal matrices, odd delta kernels that do not narrow."""
    if method == "orthogonal":
        return weight.ndim == 2
    if method == "delta-orthogonal":
        return weight.ndim > 2 and weight.shape[0] >= weight.shape[1] and all(k % 2 for k in weight.shape[2:])
    return True


def draw_weights(surgery: Surgery, weight: Tensor, gain: float, method: str) -> Tensor:
    """New values for a weight (out, in, *kernel)."""
    if method == "gaussian":
        return surgery.normal(weight) * (gain / math.sqrt(weight[0].numel()))
    rows, columns = weight.shape[0], weight.shape[1] if method == "delta-orthogonal" else weight[0].numel()
    matrix: Tensor = orthogonal_matrix(surgery, rows, columns).to(weight) * (
        gain * max(1.0, (rows / columns) ** 0.5)
    )
    if method == "orthogonal":
        return matrix.view_as(weight)
    kernel = torch.zeros_like(weight)
    middle: tuple[Any, ...] = (slice(None), slice(None), *(k // 2 for k in weight.shape[2:]))
    kernel[middle] = matrix
    return kernel


def orthogonal_matrix(surgery: Surgery, rows: int, columns: int) -> Tensor:
    """A Haar-distributed matrix with orthonormal rows or columns, whichever are fewer, (rows, columns)."""
    big = surgery.normal(torch.empty(max(rows, columns), min(rows, columns), dtype=torch.float64))
    basis, r = torch.linalg.qr(big)
    q: Tensor = basis * torch.sign(torch.diagonal(r))
    return q if rows >= columns else q.T


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    gain, bias = remedy.parameters.get("gain", 1.0), remedy.parameters.get("bias", 0.0)
    method = remedy.parameters.get("method", "gaussian")
    lines = [f"nn.init.normal_(w, std={gain:.4g} / w[0].numel() ** 0.5)"]
    if method == "orthogonal":
        lines = [f"nn.init.orthogonal_(w, {gain:.4g} * max(1, w.shape[0] / w.shape[1]) ** 0.5)"]
    elif method == "delta-orthogonal":  # the centre of the kernel, zeros around it
        lines = [
            "w.data.zero_()",
            "centre = w.data[(slice(None), slice(None), *(k // 2 for k in w.shape[2:]))]",
            f"centre.copy_(nn.init.orthogonal_(torch.empty_like(centre), {gain:.4g}))",
        ]
    draw = ["w = model.get_parameter(name)", *lines]
    if remedy.parameters.get("parametrized"):
        draw = [
            "w = torch.empty_like(layer.weight)",
            *lines,
            "layer.weight = w  # its parametrization decomposes it",
        ]
    biases = f"nn.init.normal_(layer.bias, std={bias:.4g})" if bias else "nn.init.zeros_(layer.bias)"
    return [
        f"for name in {list_names(remedy.targets)}:",
        "    layer = model.get_submodule(name.rpartition('.')[0])",
        *[f"    {line}" for line in draw],
        "    if name.endswith('weight') and getattr(layer, 'bias', None) is not None:",
        f"        {biases}",
    ]


def case() -> tuple[Case, Remedy]:
    """Twelve ReLU layers at PyTorch's default."""
    torch.manual_seed(0)
    parts = [p for _ in range(12) for p in (nn.Linear(32, 32), nn.ReLU())]
    net = nn.Sequential(*parts, nn.Linear(32, 4))
    batch = torch.randn(16, 32), torch.randint(0, 4, (16,))
    names = tuple(f"{2 * i}.weight" for i in range(12))
    remedy = Remedy("reinitialise", names, "He's gain", "retrain", {"gain": math.sqrt(2)})
    return Case(net, batch, nn.CrossEntropyLoss()), remedy
