"""The facts of a step: what the theory needs to know of an operation, by its kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from unvanish.probes import calls, operations
from unvanish.probes.events import ModuleCall, OperationCall
from unvanish.probes.program.cells import cell_of
from unvanish.probes.program.geometry import geometry_of
from unvanish.probes.program.weights import Weights
from unvanish.theory.activations import ALIASES, FUNCTIONS, NAMES

Described = tuple[str, dict[str, Any]]  # the theory's name for the step, and its facts

SETTINGS = {  # the arguments that shape an elementwise function
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "celu": ("alpha",),
    "pow": ("exponent",),
    "clamp": ("min", "max"),
    "clamp_min": ("min",),
    "clamp_max": ("max",),
}


class StepSource(NamedTuple):
    """One call as the tape sees it: which float arguments are parameters, and which are read."""

    call: OperationCall
    caller: ModuleCall
    parameters: Sequence[Tensor]
    reads: Sequence[Tensor]
    weights: Weights

    @property
    def kind(self) -> str:
        """Torch's name for the operation."""
        return self.call.kind


def describe(step: StepSource) -> Described:
    """The kind and the facts of a step; no facts if the theory needs none."""
    describer = DESCRIBERS.get(step.kind)
    return describer(step) if describer is not None else (step.kind, {})


def _layer(step: StepSource) -> Described:
    return _by_weight(step, step.call[operations.WEIGHT.get(step.kind, "weight")], _bias(step.call))


def _bias(call: OperationCall) -> Tensor | None:
    bias = call["input" if call.kind == "addmm" else "bias"]
    return bias if isinstance(bias, Tensor) and bias.ndim == 1 else None


def _product(step: StepSource) -> Described:
    """A product with a parameter is a layer; the parameter may be either factor."""
    if not step.parameters or step.parameters[0].ndim < 2:
        return step.kind, {}
    return _by_weight(step, step.parameters[0], None)


def _by_weight(step: StepSource, weight: Tensor, bias: Tensor | None) -> Described:
    call, kind = step.call, step.kind
    weight = weight if weight.ndim > 1 else weight[None]  # of a single output
    groups = call["groups"] if kind in operations.TRANSPOSED else 1
    power, mean = (0.0, 0.0) if bias is None else step.weights.bias_moments(bias, weight)
    facts = {
        "taps": step.weights.taps(kind, weight, groups),
        "bias_power": power,
        "bias_mean": mean,
    }
    if "conv" not in kind:
        return "linear", facts
    return kind, {**facts, "geometry": geometry_of(call, weight.shape[2:])}


def _activation(step: StepSource) -> Described:
    call, kind = step.call, step.kind
    settings = {name: float(call[name]) for name in SETTINGS.get(kind, ())}
    if kind == "prelu":
        settings["negative_slope"] = step.weights.power(call["weight"]) ** 0.5
    return ALIASES.get(kind, kind), {"settings": settings, "peak": operations.SQUASHING.get(kind)}


def _function(step: StepSource) -> Described:
    """An elementwise function; one with a tensor for a setting is unknown to the theory."""
    call, kind = step.call, step.kind
    names = SETTINGS.get(kind, ())
    settings = {name: value for name in names if (value := call[name]) is not None}
    plain = all(isinstance(value, (int, float)) for value in settings.values())
    if not plain or (names and not settings):
        return f"{kind} by a tensor", {}
    return kind, {"settings": {name: float(value) for name, value in settings.items()}}


def _norm(step: StepSource) -> Described:
    call, kind = step.call, step.kind
    gain, shift, eps = call["weight"], call.arguments.get("bias"), call["eps"]
    facts: dict[str, Any] = {
        "gain": step.weights.power(gain) if gain is not None else 1.0,
        "shift": step.weights.power(shift) if isinstance(shift, Tensor) else 0.0,
        "eps": 1e-5 if eps is None else float(eps),
    }
    if kind == "batch_norm":
        facts["batch_statistics"] = bool(call["training"])
        variance = step.weights.buffers.get(f"{step.caller.path}.running_var".lstrip("."))
        facts["variance"] = float(variance.mean()) + facts["eps"] if variance is not None else 1.0
    if kind in ("layer_norm", "rms_norm"):
        facts["elements"] = math.prod(call["normalized_shape"])
    if kind == "group_norm":
        facts["groups"] = call["num_groups"]
    return kind, facts


def _recurrence(step: StepSource) -> Described:
    """The cells of a fused layer; none for a packed batch, whose second argument is its sizes."""
    module, x, hx = step.caller.module, step.call["input"], step.call["hx"]
    if not isinstance(module, nn.RNNBase) or (isinstance(hx, Tensor) and hx.ndim == 1):
        return step.kind, {"cells": (), "steps": 1}
    steps = x.shape[1 if module.batch_first and x.ndim == 3 else 0]
    own = module.named_parameters(recurse=False)
    real = {name.rpartition(".")[2]: step.weights.known(p) for name, p in own}
    cells = tuple(cell_of(module, real, layer) for layer in range(module.num_layers))
    return step.kind, {"cells": cells, "steps": int(steps)}


def _embedding(step: StepSource) -> Described:
    return step.kind, {"table_power": step.weights.power(step.call["weight"])}


def _pool(step: StepSource) -> Described:
    window = step.call["kernel_size"]
    n = step.call["input"].ndim - 2
    return step.kind, {"window": math.prod(window) if isinstance(window, (tuple, list)) else window**n}


def _adaptive_pool(step: StepSource) -> Described:
    result = calls.tensors_in(step.call.result, 2)[0]
    entering = math.prod(step.call["input"].shape)
    return step.kind, {"window": entering / max(1, math.prod(result.shape))}


def _attention(step: StepSource) -> Described:
    call = step.call
    masked = bool(call["is_causal"]) or call["attn_mask"] is not None
    return call.kind, {"scale": call["scale"], "causal": masked}


def _sum(step: StepSource) -> Described:
    facts = _operand(step, 0.0)
    if step.kind == "sub" and "number" in facts:
        return "sub", {"power": facts["power"], "mean": -facts["mean"]}
    return step.kind, facts


def _factor(step: StepSource) -> Described:
    return step.kind, _operand(step, 1.0)


def _quotient(step: StepSource) -> Described:
    facts = _operand(step, 1.0)
    if not facts:
        return "div", {}
    if not step.reads or step.call["input"] is not step.reads[0]:  # by the tensor
        return (
            ("reciprocal", {"settings": {}})
            if facts.get("number") == 1
            else ("div", {"power": 1.0, "mean": 0.0})
        )
    facts["power"] = 1 / facts["power"] if facts["power"] else 1.0
    if "number" in facts:
        facts["number"] = 1 / (facts["number"] or 1.0)
    return "div", facts


def _operand(step: StepSource, neutral: float) -> dict[str, Any]:
    """Mean square and mean of what meets one tensor, a parameter or a number; nothing if two tensors meet."""
    if len(step.reads) > 1:
        return {}
    if step.parameters:
        power, mean = step.weights.moments(step.parameters[0])
        return {"power": power, "mean": mean}
    both = (step.call["input"], step.call["other"])
    number = next((a for a in both if isinstance(a, (int, float))), neutral)
    return {"power": float(number) ** 2, "mean": float(number), "number": number}


def _reversed_quotient(step: StepSource) -> Described:
    """`1 / x`; of another number over x nothing is known."""
    return ("reciprocal", {"settings": {}}) if step.call["other"] == 1 else (step.kind, {})


DESCRIBERS: dict[str, Callable[[StepSource], Described]] = {
    **dict.fromkeys(FUNCTIONS, _function),
    **dict.fromkeys((*NAMES, *ALIASES, *operations.ACTIVATIONS), _activation),
    **dict.fromkeys(operations.LAYERS - operations.PRODUCTS, _layer),
    **dict.fromkeys(operations.LAYERS & operations.PRODUCTS, _product),
    **dict.fromkeys(operations.NORMS, _norm),
    **dict.fromkeys(operations.FUSED, _recurrence),
    **dict.fromkeys(operations.POOLS, _pool),
    **dict.fromkeys(operations.ADAPTIVE_POOLS, _adaptive_pool),
    "embedding": _embedding,
    "scaled_dot_product_attention": _attention,
    "add": _sum,
    "sub": _sum,
    "mul": _factor,
    "div": _quotient,
    "rdiv": _reversed_quotient,
}
