"""Experiments on a copy: remove the cause, measure again, and see whether the flow is restored.

Notable: only the first finding is tested, the one that the report calls the cause. The user's model is never
touched; what its copy shares with it, `intact` of the examination puts back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from unvanish.core import depth, ledger
from unvanish.core.diagnosis import Finding
from unvanish.core.limits import RATIO
from unvanish.core.omissions import Omissions, describe_error
from unvanish.core.trace import Trace
from unvanish.probes import removals
from unvanish.probes.copies import copy_model
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.passes import FLOW_ALONE, NUMBERS_ALONE, Manner
from unvanish.probes.record import examine, read_specimen

Change = Callable[[nn.Module, Any, Trace, Finding], removals.Trial | None]
Judge = Callable[[Trace, Trace, Finding], tuple[bool, str] | None]


HALVED = 0.5  # a cause that is removed takes at least half of the harm with it
ORDINARY = 10.0  # root mean square of an activation that is no longer huge


def confirm_cause(
    findings: tuple[Finding, ...],
    trace: Trace,
    model: nn.Module,
    batch: Any,
    loss: Any,
    omissions: Omissions,
) -> tuple[Finding, ...]:
    """The findings; the first is marked confirmed or not if there is an experiment for its code.

    `omissions`: told why, if the experiment fails.
    """
    head = findings[0]
    if head.severity == "note":
        return findings
    if head.code in ("PRC001", "PRC002"):
        why = "run again in float32, the gradients are finite and none is flushed"
        return (replace(head, confirmed=True, experiment=why), *findings[1:])
    if head.code not in EXPERIMENTS:
        return findings
    change, judge, manner = EXPERIMENTS[head.code]
    what = f"the experiment that would confirm {head.code}"
    try:
        copied = copy_model(model)
    except Exception as error:
        omissions.note(what, "", f"the model cannot be copied ({describe_error(error)})")
        return findings
    try:
        trial = change(copied, batch, trace, head)
        if trial is None:
            return findings
        with trial.mode:
            specimen = read_specimen(trial.model, trial.batch, loss)
            after = examine(replace(specimen, manner=manner))
        verdict = judge(trace, after, head)
    except (CheckError, ModelCrash) as error:  # the changed copy does not run
        omissions.note(what, "", describe_error(error))
        return findings
    except Exception as error:
        omissions.note(what, "", error)
        return findings
    if verdict is None:
        return findings
    return (replace(head, confirmed=verdict[0], experiment=f"{trial.change}: {verdict[1]}"), *findings[1:])


def _judge_flow(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    old, new = depth.read(before), depth.read(after)
    if old is None or new is None or not math.isfinite(new.ratio):
        return None
    there = new.endpoint if old.pinched else new.log_ratio
    change = f"{_decades(old.ratio)} decades become {_decades(there)}"
    return abs(there) <= max(new.limit, HALVED * abs(old.ratio)), change


def _decades(nats: float) -> str:
    return f"{nats / ledger.DECADE:+.1f}"


def _judge_saturation(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    return _compare_shares(before, after, finding, "saturated", "saturated units")


def _judge_dead_units(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    return _compare_shares(before, after, finding, "dead", "dead units")


def _compare_shares(
    before: Trace, after: Trace, finding: Finding, statistic: str, words: str
) -> tuple[bool, str] | None:
    old, new = (
        [
            t.value(i, statistic)
            for i, s in enumerate(t.sites)
            if s.role == "node" and s.label in finding.sites
        ]
        for t in (before, after)
    )
    old, new = [x for x in old if math.isfinite(x)], [x for x in new if math.isfinite(x)]
    if not old or not new:
        return None
    return max(new) < HALVED * max(old), f"{words} {max(old):.0%} become {max(new):.0%}"


def _judge_calm(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    """The first layer's output is back to ordinary size, or its units are no longer saturated."""
    found = _compare_shares(before, after, finding, "saturated", "saturated units")
    if found is not None and found[0]:
        return found
    old, new = (_first_size(t) for t in (before, after))
    if not (math.isfinite(old) and math.isfinite(new)):
        return None
    return (
        new < HALVED * old or new < ORDINARY,
        f"the first layer's output of size {old:.3g} becomes {new:.3g}",
    )


def _first_size(trace: Trace) -> float:
    layers = [i for i, s in enumerate(trace.sites) if s.family in ("layer", "recurrent")]
    return trace.value(min(layers, key=lambda i: trace.sites[i].order), "forward_rms") if layers else math.nan


def _judge_memory(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    old, new = _through_time(before), _through_time(after)
    if not old or not new:
        return None
    a, b = max(old, key=abs), max(new, key=abs)
    return abs(b) <= max(RATIO, HALVED * abs(a)), f"{_decades(a)} decades over the steps become {_decades(b)}"


def _through_time(trace: Trace) -> list[float]:
    """Ln ||dL/dh|| at the first step over that at the last, by Theil-Sen, for each recurrence."""
    groups: dict[str, list[float]] = {}
    for i, site in enumerate(trace.sites):
        if site.role == "step":
            groups.setdefault(site.facts["of"], []).append(trace.value(i, "state_log"))
    finite = [[x for x in reversed(logs) if math.isfinite(x)] for logs in groups.values()]
    return [depth.theil_sen(logs) * (len(logs) - 1) for logs in finite if len(logs) > 2]


def _judge_reach(before: Trace, after: Trace, finding: Finding) -> tuple[bool, str] | None:
    old, new = (
        len(t.where("parameter", used=True, trainable=True)) - len(t.where("parameter", reachable=True))
        for t in (before, after)
    )
    change = f"parameters without a path from the loss: {old} become {max(0, new)}"
    return (True, change) if new < old else None


EXPERIMENTS: dict[str, tuple[Change, Judge, Manner]] = {
    "GRF001": (removals.leave_uncut, _judge_reach, FLOW_ALONE),
    "INI001": (removals.set_unit_gain, _judge_flow, FLOW_ALONE),
    "INI002": (removals.set_unit_gain, _judge_flow, FLOW_ALONE),
    "ACT002": (removals.set_unit_slope, _judge_flow, FLOW_ALONE),
    "NRM001": (removals.leave_out_centring, _judge_flow, FLOW_ALONE),
    "ACT001": (removals.calm_layers, _judge_saturation, NUMBERS_ALONE),
    "ACT003": (removals.calm_layers, _judge_dead_units, NUMBERS_ALONE),
    "INP001": (removals.standardise_batch, _judge_calm, NUMBERS_ALONE),
    "REC001": (removals.steady_recurrence, _judge_memory, FLOW_ALONE),
    "REC002": (removals.steady_recurrence, _judge_memory, FLOW_ALONE),
}
