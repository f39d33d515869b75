"""A normalisation or a dropout runs in the wrong mode: running statistics in training, or noise in
evaluation.

Why it harms

BatchNorm has two modes, and dropout is off in one of them:

    training:    (x - mean of the batch) / deviation of the batch
    evaluation:  (x - running mean) / running deviation, which begin as 0 and 1

Trained in evaluation mode, a new network is not normalised at all. Where the running statistics
never move, or are those of the last batch, what is trained is not what is evaluated; nor is it
where dropout goes on.

An example

    model.eval()                                   # and trained like that
    h = F.dropout(h)                               # training=True where it is left out
    nn.BatchNorm2d(64, momentum=0.99)              # 0.01 here: the weight of the new batch

How it is measured

Of a BatchNorm that uses its running statistics: the distance of this batch's mean from them in
deviations, and the ratio of the variances, of the median channel. Beyond the limits it is a
warning; nearer, a note if the statistics are still 0 and 1 or dropouts are off and the whole
model is in evaluation mode. Of one that uses the batch's: its momentum. Where `training` is left
out of `F.dropout` or written as True, or the `dropout_p` of an attention is a plain number, as the
line of code says, one forward in evaluation mode shows whether that line still drops, or still
takes the statistics of the batch. A dropout with training=True is meant, and a note.
In a watched training the model is asked for its mode as its optimizer steps: that it went over to
evaluation, or has been there from the start with statistics that are still 0 and 1, is a warning.

Limits

    limit = 50        times between the variances of batch and running ones: pictures without
                      colour, of half the contrast, stay within 18 of the statistics of others, and
                      so does a new residual net of those it begins with (measured)
    SHIFT = 5         deviations between the means: the same data stay within 0.06, and brighter
                      pictures within 1.6 (measured)
    FORGETS = 0.9     the momentum from which the running statistics are those of the last batch;
                      published networks use 0.003 to 0.5
    LARGEST = 700     ln of a ratio that is shown: what is larger has no float

Remedies

model.train() before the loop, and model.eval() only to evaluate (retrain where the statistics are
new, advice where they are of other data); F.dropout(x, p, self.training) (advice). A momentum of
0.1, or 1 less that of other libraries (advice).

When it is wrong

A momentum of 1 for statistics that are taken anew. Frozen normalisations of a trained network
whose statistics fit the data are right, and silent.

References: Ioffe and Szegedy 2015; the PyTorch documentation, torch.nn.BatchNorm2d, on momentum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _modes, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import REMARK, SLOW, Tier

NEEDS = ("static", "step")
LIVE = True
AT_ONCE = True
EXPLAINS = ("INI001", "INI002", "DEP001", "DEP002", "DEP003", "ACT001", "ACT002", "ACT003", "OUT003")
SHIFT = 5.0
FORGETS = 0.9
LARGEST = 700.0


def check(trace: Trace, *, limit: float = 50.0) -> Iterable[Fault]:
    """One fault for running statistics that do not fit, one for those that are lost, one for dropouts."""
    if trace.facts.get("live"):
        return _modes.judge_modes(trace)
    forced = trace.facts.get("forced_dropouts", [])
    idle = trace.facts.get("idle_dropouts", 0)
    norms = [i for i in trace.where("node") if trace.sites[i].kind == "batch_norm"]
    if not norms and not forced and not idle:
        raise NotApplicable("the model has no BatchNorm and no dropout")
    return [*_find_running(trace, norms, limit), *_find_lost(trace, norms), *_find_forced(trace, norms)]


def _find_running(trace: Trace, norms: list[int], limit: float) -> list[Fault]:
    """Running statistics that are used while the model is trained, and a model in evaluation mode."""
    used = [i for i in norms if "off_mean" in trace.sites[i].facts]
    far = [i for i in used if _measure_far(trace, i, limit) > 1]
    if far:
        return [_report_far(trace, far, limit)]
    fresh = [i for i in used if trace.sites[i].facts.get("fresh")]
    idle = trace.facts.get("idle_dropouts", 0)
    if trace.facts.get("training", True) or not (fresh or idle):
        return []
    what = [f"{len(fresh)} BatchNorm use running statistics that are still 0 and 1"] if fresh else []
    what += [f"{idle} dropout{'s are' if idle > 1 else ' is'} off"] if idle else []
    names = _places.label(trace, fresh) or ("(model)",)
    cause = f"the model is in evaluation mode: {' and '.join(what)}"
    number = Evidence("fresh statistics", len(fresh)) if fresh else Evidence("dropouts that are off", idle)
    why = "model.train() before the training loop, if this is what is trained"
    return [_report("note", cause, names, number, Remedy("set-mode", names, why, safety="advice"))]


def _measure_far(trace: Trace, i: int, limit: float) -> float:
    """How far running statistics are off, as a multiple of what is allowed."""
    facts = trace.sites[i].facts
    return max(facts["off_mean"] / SHIFT, math.exp(min(abs(facts["off_scale"]), LARGEST)) / limit)


def _report_far(trace: Trace, far: list[int], limit: float) -> Fault:
    worst = max(far, key=lambda i: _measure_far(trace, i, limit))
    site, names = trace.sites[worst], _places.label(trace, [worst, *far])
    facts = site.facts
    ratio = math.exp(min(abs(facts["off_scale"]), LARGEST))
    size = "larger" if facts["off_scale"] > 0 else "smaller"
    off = (
        f"the variance of this batch is {ratio:.2g} times {size}"
        if ratio / limit >= facts["off_mean"] / SHIFT
        else f"the mean of this batch is {facts['off_mean']:.2g} deviations away"
    )
    fresh = bool(facts.get("fresh"))
    mode = "in evaluation mode" if not trace.facts.get("training", True) else "frozen"
    whose = "still 0 and 1" if fresh else "of other data"
    why = (
        "model.train() before the loop: a new BatchNorm has no statistics of its own yet"
        if fresh
        else "prepare the input as it was for the training whose statistics these are, or let them learn"
    )
    return _report(
        "warning",
        f"{site.label} is {mode}, and its running statistics are {whose}: {off}, so it does not normalise",
        names,
        Evidence(
            "variances, batch over running", math.exp(min(facts["off_scale"], LARGEST)), site=site.label
        ),
        Remedy("set-mode", names, why, safety="retrain" if fresh else "advice"),
    )


def _find_lost(trace: Trace, norms: list[int]) -> list[Fault]:
    """Running statistics that never move, or forget all but the last batch, or are never used."""
    facts = {i: trace.sites[i].facts for i in norms}
    still = [i for i in norms if facts[i].get("momentum") == 0 and facts[i].get("fresh")]
    forgets = [i for i in norms if facts[i].get("momentum", 0.0) >= FORGETS]
    if not still and not forgets:
        return []
    names = _places.label(trace, still or forgets)
    momentum = facts[(still or forgets)[0]]["momentum"]
    harm = (
        "its running statistics stay 0 and 1, so in evaluation it does not normalise"
        if still
        else "its running statistics are those of the last batch: here it is the weight of the new one"
    )
    why = "a momentum of 0.1" + ("" if still or momentum == 1 else f", or {1 - momentum:.2g} if {momentum:g} "
                                 "came from another library")  # fmt: skip
    return [
        _report(
            "warning",
            f"{names[0]} has a momentum of {momentum:g}: {harm}",
            names,
            Evidence("momentum", momentum, limit=f"0 < momentum < {FORGETS:g}", site=names[0]),
            Remedy("set-momentum", names, why, safety="advice"),
        )
    ]


def _find_forced(trace: Trace, norms: list[int]) -> list[Fault]:
    """Dropouts and batch statistics that do not stop in evaluation."""
    found = []
    dropouts = trace.facts.get("forced_dropouts", [])
    if dropouts:
        first = next((f for f in dropouts if not f["meant"]), dropouts[0])
        names = tuple(dict.fromkeys(f["path"] or "(model)" for f in dropouts))[: _places.MOST]
        line = f" ({first['line']})" if first["line"] else ""
        how = (
            "drops although the module is in evaluation mode"
            if first["evaluating"]
            else "drops in evaluation, too"
        )
        fix = (
            "dropout_p=p if self.training else 0.0" if first["what"] == "attention"
            else "F.dropout(x, p, training=self.training), or nn.Dropout"
        )  # fmt: skip
        meant = ", as it seems on purpose" if first["meant"] else ""
        cause = f"the {first['what']} in {first['path'] or '(model)'}{line} {how}{meant}"
        number = Evidence("dropouts that ignore the mode", len(dropouts), limit="0", site=names[0])
        remedy = Remedy("follow-mode", names, fix, safety="advice")
        found.append(_report("note" if first["meant"] else "warning", cause, names, number, remedy))
    always = [i for i in norms if trace.sites[i].facts.get("forced")]
    if always:
        names = _places.label(trace, always)
        cause = (
            f"batch_norm in {names[0]} ({trace.sites[always[0]].facts['forced']}) uses the statistics of the "
            "batch in evaluation, too: the running ones are kept and never used"
        )
        number = Evidence("normalisations that ignore the mode", len(always), limit="0", site=names[0])
        remedy = Remedy("follow-mode", names, "training=self.training, or nn.BatchNorm", safety="advice")
        found.append(_report("warning", cause, names, number, remedy))
    return found


def _report(
    severity: Severity, cause: str, sites: tuple[str, ...], number: Evidence, remedy: Remedy
) -> Fault:
    tier: Tier = REMARK if severity == "note" else SLOW
    return Fault(
        severity=severity,
        cause=cause,
        sites=sites,
        evidence=(number,),
        remedies=(remedy,),
        direction="none",
        tier=tier,
    )


def sick() -> Case:
    """A new network of twelve layers, trained in evaluation mode."""
    return _case(train=False)


def healthy() -> Case:
    """The same in training mode."""
    return _case(train=True)


def _case(train: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = [nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()) for _ in range(4)]
        net = nn.Sequential(*rows, nn.Linear(32, 4)).train(train)
        batch = torch.randn(64, 32), torch.randint(0, 4, (64,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="four layers with BatchNorm")
