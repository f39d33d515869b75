"""The step that an optimizer would take after an examination: whether it is tried, and what the loss does.

Limits

    LONG = 0.1    of the weights is what the step would change, in the middle of the weight matrices: then it
                  is tried without being asked for. Usual first steps change 0.001 to 0.05; all of 22 first
                  steps beyond twice the critical rate changed 0.17 or more (`benchmarks/critical.py`)
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from typing import Any

from torch import Tensor

from unvanish.core.omissions import Omissions
from unvanish.core.run_facts import CriticalFacts
from unvanish.core.trace import Trace
from unvanish.probes import calls
from unvanish.probes.backward import pull
from unvanish.probes.critical import measure_critical_step
from unvanish.probes.errors import CheckError
from unvanish.probes.intact import intact
from unvanish.probes.passes import Specimen
from unvanish.probes.planned import ADAPTIVE, Plan, read_plans
from unvanish.probes.planned_change import plan_step
from unvanish.probes.run_forward import check_scalar

LONG = 0.1
SEARCHING = ("LBFGS",)  # its step is as long as its own forwards say


def try_step(trace: Trace, specimen: Specimen, rate: float | None) -> Trace:
    """The trace, with what the step does to the loss if a `rate` is asked about, or the step looks long.

    CheckError if a rate is asked about and the step cannot be tried.
    """
    if rate is None and not _looks_long(trace, specimen):
        return trace
    if _is_random(trace):
        raise CheckError("the critical rate is that of a loss; give loss=")
    try:
        found = _measure(specimen, rate)
    except Exception as error:
        if rate is not None:
            raise CheckError(f"the step at lr={rate:g} cannot be tried: {error}") from error
        omissions = Omissions()
        omissions.note("how far the optimizer's step lowers the loss", "", error)
        return replace(
            trace,
            facts={
                **trace.facts,
                "unmeasured": [*trace.facts.get("unmeasured", ()), *omissions.sentences()],
            },
        )
    return replace(trace, facts={**trace.facts, "critical": [found], "asked": rate is not None})


def _looks_long(trace: Trace, specimen: Specimen) -> bool:
    """Whether the step would change a large part of the weights, by what is known already."""
    plans = {key: plan for key, plan in read_plans(specimen.optimizer).items() if plan.kind not in SEARCHING}
    if not plans or not math.isfinite(trace.facts.get("loss", math.nan)) or _is_random(trace):
        return False
    shares = [
        _share(trace, i, plans[id(p)])
        for i in trace.where("parameter")
        if (p := specimen.parameters.get(trace.sites[i].path)) is not None and p.ndim > 1 and id(p) in plans
    ]
    known = [share for share in shares if math.isfinite(share)]
    return bool(known) and median(known) > LONG


def _is_random(trace: Trace) -> bool:
    return trace.facts.get("objective") == "random cotangent"


def _share(trace: Trace, site: int, plan: Plan) -> float:
    """What a step changes of a parameter, by norms; of Adam and its like each element moves by the rate."""
    size, gradient = trace.value(site, "weight_rms"), trace.value(site, "gradient_log")
    if not size > 0 or not math.isfinite(gradient):
        return math.nan
    elements = int(trace.sites[site].facts["numel"])
    moved = 0.0 if plan.kind in ADAPTIVE else gradient - 0.5 * math.log(elements)
    return plan.rate * math.exp(min(moved, 100.0)) / size


def _measure(specimen: Specimen, rate: float | None) -> CriticalFacts:
    """One backward for the step, then the loss along it; CheckError without a loss."""
    call = calls.prepare(specimen.batch, specimen.loss, gradients=False)
    roots: tuple[Any, ...] = (specimen.model, specimen.batch, specimen.loss)

    def objective() -> Tensor:
        return check_scalar(call.objective(call.run(specimen.model)))

    parameters = [p for p in specimen.parameters.values() if p.requires_grad]
    with intact(*roots) as kept, kept:
        gradients = pull(objective(), parameters)
    step = plan_step(parameters, gradients, specimen.optimizer, rate)
    return measure_critical_step(-1, step, objective, roots)
