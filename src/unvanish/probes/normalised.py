"""What is measured of a normalisation: over how many values, by whose statistics, how far these are off."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unvanish.core.facts import NodeFacts
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.lines import find_line
from unvanish.probes.written import read_argument

NUMBERS = 1 << 18  # of an input that its statistics are taken of, at most
TRAINING = 5  # its place among the arguments of torch.nn.functional.batch_norm


def read_norm(operation: Operation, call: OperationCall) -> None:
    """The facts of a normalisation."""
    facts, kind = operation.facts, call.kind
    facts["normalised"] = count_normalised(call)
    if kind == "instance_norm":
        facts["batch_statistics"] = False
    if kind == "batch_norm":
        facts["batch_statistics"] = bool(call["training"])
        facts.update(_read_running(call, operation.caller.module))


def count_normalised(call: OperationCall) -> int:
    """How many values share a mean and a spread; 0 if unknown, or if running statistics are used."""
    x, kind = call["input"], call.kind
    spatial: int = math.prod(x.shape[2:])
    if kind in ("layer_norm", "rms_norm"):
        shape = call["normalized_shape"]
        return math.prod(shape) if isinstance(shape, (tuple, list)) else int(shape)
    if kind == "group_norm":
        return int(x.shape[1] // call["num_groups"] * spatial)
    if kind == "instance_norm":
        return spatial
    return int(x.shape[0] * spatial) if call["training"] else 0


def _read_running(call: OperationCall, module: nn.Module) -> NodeFacts:
    """Of a batch normalisation with running statistics: what becomes of them, or how far they are off."""
    mean, var = (call.arguments.get(name) for name in ("running_mean", "running_var"))
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor) or mean.is_meta:
        return {}
    if not call["training"]:
        with torch.no_grad():
            distance = _measure_distance(call["input"], mean, var + call["eps"])
        return {"fresh": _is_fresh(mean, var), **distance}
    facts = _read_written(call, module)
    if facts.get("momentum") == 0:
        facts["fresh"] = _is_fresh(mean, var)
    return facts


def _is_fresh(mean: Tensor, var: Tensor) -> bool:
    return not bool(mean.any()) and bool((var == 1).all())


def _read_written(call: OperationCall, module: nn.Module) -> NodeFacts:
    own = isinstance(module, nn.modules.batchnorm._NormBase)
    momentum = module.momentum if own else call["momentum"]
    facts: NodeFacts = {} if momentum is None else {"momentum": float(momentum)}  # type: ignore[arg-type]
    if not own and (
        not module.training or read_argument(("batch_norm",), "training", TRAINING) == "constant"
    ):
        facts["forced"] = find_line()
    return facts


def _measure_distance(x: Tensor, mean: Tensor, var: Tensor) -> NodeFacts:
    """Of the median channel: the distance of the batch's mean in deviations, ln of the variances' ratio."""
    rows = x.detach()[: max(2, NUMBERS * len(x) // max(1, x.numel()))]
    if rows.numel() < 2 * len(mean) or rows.ndim < 2:
        return {}
    dims = [d for d in range(rows.ndim) if d != 1]
    own_var, own_mean = torch.var_mean(rows.double(), dims, correction=0)
    shift = float(((own_mean - mean).abs() / var.double().sqrt()).median())
    ratio = float((own_var / var.double()).clamp_min(1e-30).median())
    return {"off_mean": shift, "off_scale": math.log(ratio)} if math.isfinite(shift + ratio) else {}
