"""Rows of a Trace: the sites of inputs and time steps, and all rows assembled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unvanish.core.facts import InputFacts, StepFacts, TraceFacts
from unvanish.core.omissions import Omissions
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.probes import node_sites
from unvanish.probes.backward import GradientFlow
from unvanish.probes.calls import Call
from unvanish.probes.emptiness import read_emptiness
from unvanish.probes.features import describe_features, find_units, scale_by_logs
from unvanish.probes.forward import Forward
from unvanish.probes.measures import activation_stats, dense, find_shape
from unvanish.probes.passes import Measured
from unvanish.probes.recurrent.loops import Recurrence


def assemble(rows: Sequence[Measured], axes: Iterable[Axis], facts: TraceFacts) -> Trace:
    """The Trace of one step."""
    names = {name: i for i, name in enumerate(STATISTICS)}
    values = np.full((1, len(rows), len(names)), math.nan)
    width = len(names)
    places = [i * width + names[name] for i, (_, stats) in enumerate(rows) for name in stats]
    values.put(places, [value for _, stats in rows for value in stats.values()])
    return Trace(tuple(site for site, _ in rows), values, tuple(axes), facts)


def assemble_crash(watched: Forward, call: Call, crash: str) -> Trace:
    """What was measured up to a crash: forward statistics only."""
    watched.small.settle()
    attempt = watched.omissions.attempt
    found: list[Measured] = attempt("the operations", "", lambda: node_sites.nodes(call, watched)[0], list)
    facts: TraceFacts = {"crash": crash, "batch_size": call.batch_size}
    return assemble(inputs(call, None, watched.omissions) + found, (), facts)


def inputs(
    call: Call,
    flow: GradientFlow | None,
    omissions: Omissions,
    read: Mapping[str, dict[str, float]] | None = None,
    axis: int | None = None,
    held: bool = True,
) -> list[Measured]:
    """One site for each tensor of the batch that the model was given; `read`: their statistics, if known.

    `axis`: of the features, if the first layer found them uneven; `held`: say what they hold, too.
    """
    found = []
    for name, tensor in call.originals.items():
        floating = tensor.is_floating_point()
        facts: InputFacts = {
            "shape": find_shape(tensor),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "floating": floating,
        }
        stats: dict[str, float] = {}
        if floating and not tensor.is_meta:
            try:
                stats = activation_stats(tensor, call.batch_size) if read is None else read[name]
                facts |= _centre(tensor, stats)
                if axis is not None and tensor.ndim > axis:
                    facts |= _describe_columns(tensor, axis)
            except Exception as error:
                omissions.note("the input", name, error)
        if held:
            look = partial(read_emptiness, tensor)
            emptiness: InputFacts = omissions.attempt("what an input holds", name, look, InputFacts)
            facts |= emptiness
        if flow is not None and f"\0{name}" in flow.logs:
            stats["backward_log"] = flow.logs[f"\0{name}"]
        found.append((Site.input(name, facts), stats))
    return found


def _describe_columns(x: Tensor, axis: int) -> InputFacts:
    """Centre and scale of each feature, of its logarithm where it spans decades."""
    units = find_units(x, axis)
    along = torch.tensor(units or 0.0, dtype=torch.float64, device=x.device)
    along = along.view(-1, *(1,) * (x.ndim - 1 - axis)) if units else along
    each = describe_features(scale_by_logs(x.double(), along) if units else x, axis)
    facts: InputFacts = {"features": each, "axis": axis} if each else {}
    return {**facts, "units": units} if each and units else facts


def _centre(x: Tensor, stats: Mapping[str, float]) -> InputFacts:
    """The mean and the standard deviation of an input."""
    if not x.numel():
        return {}
    mean = float(dense(x.detach()).mean(dtype=torch.float64))
    power = stats.get("forward_rms", math.nan) ** 2
    return {"mean": mean, "std": math.sqrt(max(0.0, power - mean**2))}


def steps(recurrences: Iterable[Recurrence]) -> list[Measured]:
    """One site for each step of each recurrence."""
    found = []
    for r in recurrences:
        for t, (state, carry) in enumerate(zip(r.state_log, r.carry_log, strict=True)):
            facts: StepFacts = {
                "of": r.of,
                "step": t,
                "steps": len(r.state_log),
                "reverse": r.reverse,
                "module": r.module,
            }
            stats = {"state_log": float(state), "carry_log": float(carry)}
            found.append((Site.step(r.of, r.kind, t, facts), stats))
    return found
