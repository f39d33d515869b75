"""An operation passes exactly no gradient: what comes before it is on the graph, but never learns.

Why it harms

Some functions are flat almost everywhere, or have become so:

    d round(x)/dx = d sign(x)/dx = 0
    clamp outside its range,   softmax over one value,   LayerNorm over two,   a gate that is 0

Unlike a cut graph nothing is None: the gradients are there, and all of them are zero, which no
framework complains about.

An example

    h = torch.round(4 * encoder(x))
    loss(head(h), y).backward()          # encoder.weight.grad is all zeros

How it is measured

If a parameter's gradient is exactly zero, every node of the graph is looked at once more: the
operation that gets a gradient and passes exactly none is named. Zero-initialised weights and
branches are no fault, unless two factors of a product are zero parameters, as when all weights
are set to 0, or a zero gain follows zero weights: the gradient of each is zero because of the
other, for ever. So is a series of them, if every parameter that blocks gets no gradient itself,
as when all normalisation gains are 0, and a gain or weight whose zeros a ReLU reads. Gains on
every path that are 0 one behind the other are a warning. What is multiplied by the number 0
beside other paths is a note. If the loss has several terms, one that reaches parameters through
torch.normal, a rounding or a nearest look-up alone is an error, though another term moves them. A
normalisation over two values leaves their order alone, +1 and -1, up to its epsilon: a warning,
and for a batch of two beside other paths a note. A hook that returns zeros is found by what was
sent to a node and what arrived there. Dead units are another rule's. A half of a recurrent layer
whose recurrent weights alone starve is read after its first step, as the reverse half is at `[:,
-1]`. What gives only zeros, of numbers that are none, is named if what follows passes nothing at
zero, as numbers less their own mean that are one each. An operation of the loss is named if no
parameter at all gets a gradient; a loss of exactly 0 is only noted, since it may be at its minimum
on this batch.

Limits

    SERIES = 2       gains of zero on every path: one alone is where some last layers start
    SHUT = 0.99      of the units of a sigmoid are flat: it is what shuts the product after it
    NEAR = 6         operations after it at most, to be named with it

A gradient is exactly zero or not.

Remedies

A straight-through estimator for rounding and signs, tanh for signs (retrain). Remove or widen
the clamp, normalise over more than one element (advice).

When it is wrong

A part that this batch happens not to need, such as an expert that was not chosen by a hard gate.

References: Bengio et al. 2013 (straight-through); Hubara et al. 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import HookFacts, StopReason
from unvanish.core.trace import Site, Trace
from unvanish.rules import _blank, _flat_ways, _places, _zeros
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import FLAT

NEEDS = ("step",)
EXPLAINS = ("INI001", "DEP001", "ACT001", "ACT002", "ATT002", "REC001", "NRM002")
ROUNDING = ("round", "sign", "floor", "ceil", "trunc", "heaviside", "clamp", "clip", "hardtanh", "bernoulli")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
STEPS = ("sign", "sgn", "heaviside")
NEAR, SHUT = 6, 0.99


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the operations that stop the gradient."""
    if not trace.where("parameter", reachable=True):
        raise NotApplicable("the loss reaches no parameter")
    flat = _find_hooked(trace) or _find_alone(trace) or _find_flat(trace) or _find_single(trace)
    return (
        flat
        or _zeros.find(trace)
        or _blank.find_blank(trace)
        or _find_flat_loss(trace)
        or _flat_ways.find_regularised(trace)
        or _flat_ways.find_switched_off(trace)
    )


def _find_hooked(trace: Trace) -> list[Fault]:
    """Hooks that set a gradient to zero."""
    hooks = trace.facts.get("hooks", [])
    if not hooks:
        return []
    names = tuple(dict.fromkeys(n for hook in hooks for n in hook["starves"]))
    total = len(trace.where("parameter", trainable=True))
    where = tuple(dict.fromkeys(hook["path"] or "(model)" for hook in hooks))
    lines = [hook["line"] for hook in hooks if hook["line"]]
    put = f" ({lines[0]})" if lines else ""
    return [
        Fault(
            severity="error",
            cause=f"a backward hook on {_name_hook(hooks[0], where[0])}{put} returns zeros: {len(names)} of "
            f"{total} parameters before it never learn",
            sites=tuple(dict.fromkeys((*where, *names)))[: _places.MOST],
            evidence=(
                Evidence("parameters that a hook silences", len(names), unit=f"of {total}", limit="0"),
                *(Evidence("its line", line) for line in lines[:1]),
            ),
            remedies=(
                Remedy(
                    "remove-hook",
                    where[: _places.MOST],
                    "a hook that only looks returns None; freeze what shall not learn",
                    safety="advice",
                ),
            ),
            direction="blocked",
            tier=FLAT,
            size=len(names) / max(1, total),
        )
    ]


def _name_hook(hook: HookFacts, where: str) -> str:
    return f"a tensor in {where}" if hook["on"] == "tensor" else where


def _find_alone(trace: Trace) -> list[Fault]:
    """A normalisation over a single value, if it is what stops most."""
    stops = _stops(trace, "operation")
    return _find_single(trace) if stops and trace.sites[stops[0]].facts.get("normalised") == 1 else []


def _find_single(trace: Trace) -> list[Fault]:
    """Normalisations over one value, or over two, which give their shift or a sign whatever comes in."""
    norms = [i for i in trace.where("node") if trace.sites[i].family == "norm"]
    single = [i for i in norms if trace.sites[i].facts.get("normalised") == 1]
    pairs = [
        i for i in norms if trace.sites[i].facts.get("normalised") == 2 and trace.sites[i].kind != "rms_norm"
    ]
    if not single and not pairs:
        return []
    few = single or pairs
    site, targets = trace.sites[few[0]], _places.label(trace, few)
    count, gives = ("a single value", "its bias, or a sign,") if single else ("two values", "+1 and -1")
    lost = "no gradient" if single else "hardly any gradient"
    by_batch = site.kind == "batch_norm"
    return [
        Fault(
            severity="error" if single else "warning" if not by_batch or _is_crossed(site) else "note",
            cause=f"{site.kind}{_places.locate(site)}{_places.cite(site)} normalises over {count}, so its "
            f"output is {gives} whatever comes in: {lost} passes",
            sites=targets,
            evidence=(
                Evidence("values normalised together", 1 if single else 2, limit="> 2", site=site.label),
            ),
            remedies=(
                Remedy(
                    "normalise-over-more",
                    targets,
                    "over more values: a larger batch, drop_last=True, or LayerNorm"
                    if by_batch
                    else "over more values: all features, fewer groups, or a map larger than 1 x 1",
                    safety="advice",
                ),
            ),
            direction="blocked",
            tier=FLAT,
        )
    ]


def _is_crossed(site: Site) -> bool:
    """Whether every gradient path crosses a site."""
    return bool(site.facts.get("cut"))


def _is_last_way(trace: Trace, place: int) -> bool:
    """Whether nothing that ran before a site gets a gradient, by it or by another way."""
    before = [i for i in trace.where("node") if trace.sites[i].order < trace.sites[place].order]
    got = max((trace.value(i, "backward_log") for i in before), default=-math.inf)
    return _is_crossed(trace.sites[place]) and not got > -math.inf


def _find_flat(trace: Trace) -> list[Fault]:
    """The operations of the network that get a gradient and pass none."""
    stops = _stops(trace, "operation") or [i for i in _stops(trace, "number") if _is_last_way(trace, i)]
    if not stops:
        return []
    site, targets = trace.sites[stops[0]], _places.label(trace, stops)
    starved, total = int(site.facts.get("starved", 0)), len(trace.where("parameter", trainable=True))
    half = _find_unread_half(trace, stops[0])
    cause = (
        f"{site.kind}{_places.locate(site)}{_places.cite(site)} passes exactly no gradient: {starved} "
        f"of {total} parameters before it never learn"
    )
    gate = _find_gate(trace, stops[0])
    if gate is not None:
        cause += f", since {trace.sites[gate].label} is driven to its end and shuts that way"
        targets = tuple(dict.fromkeys((trace.sites[gate].label, *targets)))[: _places.MOST]
    return [
        Fault(
            severity="error",
            cause=_tell_half(site, half) if half else cause,
            sites=targets,
            evidence=(
                Evidence(
                    "parameters with exactly no gradient",
                    starved,
                    unit=f"of {total}",
                    limit="0",
                    site=site.label,
                ),
                Evidence("the operation", site.kind, site=site.label),
            ),
            remedies=_read_end(targets, half) if half else _replace(site, targets),
            direction="blocked",
            tier=FLAT,
            size=starved / max(1, total),
        )
    ]


def _find_gate(trace: Trace, place: int) -> int | None:
    """The saturated activation shortly before a product, whose factor is exactly 0 by it; None for others."""
    order = trace.sites[place].order
    near = [i for i in trace.where("node", squashing=True) if 0 < order - trace.sites[i].order <= NEAR]
    shut = [i for i in near if trace.value(i, "saturated") > SHUT]
    return shut[-1] if shut and trace.sites[place].kind == "mul" else None


def _find_unread_half(trace: Trace, place: int) -> str:
    """What of a recurrent layer is read after one step: its "forward" or "reverse" half, "all", or ""."""
    if trace.sites[place].kind not in RECURRENT or trace.value(place, "forward_rms") == 0:
        return ""
    learning = trace.where("parameter", trainable=True, reachable=True)
    log = {trace.sites[i].label: trace.value(i, "gradient_log") for i in learning}
    hidden = [n for n in log if n.count("weight_hh_l") and log.get(n.replace("_hh_", "_ih_")) != -math.inf]
    silent = {n.endswith("_reverse") for n in hidden if log[n] == -math.inf}
    if len(silent) == 1 and any(n.endswith("_reverse") for n in log):
        return "reverse" if silent.pop() else "forward"
    return "all" if silent else ""


def _tell_half(site: Site, half: str) -> str:
    who = site.kind if half == "all" else f"the {half} half of {site.kind}"
    return (
        f"{who}{_places.locate(site)}{_places.cite(site)} is read where it has seen one step only: its "
        "recurrent weights never learn"
    )


def _read_end(targets: tuple[str, ...], half: str) -> tuple[Remedy, ...]:
    why = f"the {half} half ends at the {'first' if half == 'reverse' else 'last'} step: read it there, or "
    why = "read its last step, of a sequence of several" if half == "all" else why + "the final states, h_n"
    return (Remedy("read-own-end", targets, why, safety="advice"),)


def _stops(trace: Trace, reason: StopReason) -> list[int]:
    """The operations that stop the gradient for this reason, those that starve most parameters first."""
    stops = trace.where("node", kills=True, kills_because=reason)
    return sorted(stops, key=lambda i: -int(trace.sites[i].facts.get("starved", 0)))


def _replace(site: Site, targets: tuple[str, ...]) -> tuple[Remedy, ...]:
    """An estimator for what rounds, and an operation with a slope for all else."""
    remedies: tuple[Remedy, ...]
    if site.kind in ROUNDING:
        why = "forward as it is, backward as the identity"
        remedies = (Remedy("straight-through", targets, why),)
    else:
        why = "an operation with a slope: no clamp, a softer gate, a norm over more elements"
        if site.facts.get("function"):
            why = (
                "its backward returns nothing or zeros: return what each input that needs a gradient is owed"
            )
        remedies = (Remedy("replace-operation", targets, why, safety="advice"),)
    if site.kind in STEPS:
        why = "a smooth step in its place passes a gradient"
        remedies += (Remedy("swap-activation", targets, why, parameters={"to": "tanh"}),)
    return remedies


def _find_flat_loss(trace: Trace) -> list[Fault]:
    """A loss that itself leaves no parameter a gradient."""
    stops = _stops(trace, "loss")
    learning = trace.where("parameter", trainable=True, reachable=True)
    if not stops or any(trace.value(i, "gradient_log") != -math.inf for i in learning):
        return []
    site, value = trace.sites[stops[0]], float(trace.facts.get("loss", math.nan))
    if site.kind == "mul" and trace.facts.get("dead_terms"):
        return []  # what is left beside a term that lost its gradient
    kind = site.kind
    where = f"{kind} in the loss{_places.cite(site)}"
    cause = f"{where} passes exactly no gradient: no parameter learns from this batch"
    why = "a loss with a slope: no rounding, comparison or clamp between it and the output"
    if value == 0:
        cause += ", since its loss is 0"
        why = "it may be at its minimum on this batch, be clamped there, or be multiplied by zero"
    return [
        Fault(
            severity="note" if value == 0 else "error",
            cause=cause,
            sites=("loss",),
            evidence=(
                Evidence(
                    "parameters with exactly no gradient",
                    len(learning),
                    unit=f"of {len(learning)}",
                    limit="0",
                ),
                Evidence("the operation", kind, site="loss"),
                Evidence("loss", value),
            ),
            remedies=(Remedy("replace-operation", ("loss",), why, safety="advice"),),
            direction="blocked",
            tier=FLAT,
            size=1.0,
        )
    ]


def sick() -> Case:
    """A rounding between encoder and head."""
    import torch
    from torch import Tensor, nn

    class Quantised(nn.Module):
        """head(round(4 encoder(x)))."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(torch.round(4 * self.encoder(x)))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Quantised(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="rounded features",
        )


def healthy() -> Case:
    """A straight-through rounding, and a branch that starts at zero."""
    import torch
    from torch import Tensor, nn

    class Through(nn.Module):
        """head(h + (round(h) - h).detach() + alpha * extra(h)), alpha = 0."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.extra, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)
            self.alpha = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            h = 4 * self.encoder(x)
            h = h + (torch.round(h) - h).detach()
            out: Tensor = self.head(h + self.alpha * self.extra(h))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Through(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="straight through",
        )
