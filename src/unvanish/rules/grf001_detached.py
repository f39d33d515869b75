"""The autograd graph is cut: trainable parameters are executed, but the loss cannot reach them.

Why it harms

Behind a cut there is no gradient at all, not a small one: after `backward()` the parameters'
`.grad` is None, optimizers skip them silently, and the part stays as it was initialised.

An example

    h = encoder(x).detach()
    loss(head(h), y).backward()          # encoder learns nothing

How it is measured

On the graph: a trainable parameter that went into an operation, and no path from the loss to it.
The places that leave the graph (`detach`, `.data`, `no_grad`, NumPy, `item`, `argmax`,
comparisons) are noted on the way forward, each with its line, and what was made of their values
is followed: the one is named whose value comes back at an operation that the loss reaches, and
without which most such parameters would have a path. If several keep the same parameters from
it, they are named too. Where a value cannot be followed, through NumPy or numbers of Python, it
is the first place after the last use. Re-entrant activation checkpointing whose inputs need no
gradient gives none to what it runs; its blocks are run as it would run them.

Only a note: what is kept apart on purpose, such as a copy that lies near a trained part and
whose value comes back above it (teachers, target networks), parameters that the forward itself
writes to (averages), a part that runs under no_grad of which only the loss reads anything
(targets), what only derivatives are read of (the last bias of an energy), and the part of a last
block whose like is read in every block before it.

Limits

    PART = 0.5    of the numbers that the named cut keeps from the loss: another cut that keeps as
                  many from it is named too

A path is there or not. A copy lies within 0.5 of the trained values, relative to their norm: an
average over hundreds of steps lags by less, two independent draws are 1.4 apart.

Remedies

Remove the cut (retrain). For a discrete choice use a straight-through estimator, or a relaxation
such as Gumbel-softmax (retrain). Checkpoint with use_reentrant=False (advice). For parameters
that shall not learn set requires_grad to False (advice).

When it is wrong

Feature extractors are cut off on purpose; then freeze them, which also saves memory.

References: The PyTorch documentation, autograd mechanics; Bengio et al. 2013
(straight-through).
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import GraphCut
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import CUT, REMARK

NEEDS = ("static", "step")
EXPLAINS = ("GRF002", "GRF006", "INI001", "DEP001", "ATT002", "GRF004", "ACT003")
DISCRETE = ("argmax", "comparison", "argsort", "sampling", "indices", "integers")
CHOICES = ("argmax", "comparison", "sampling", "integers")  # that a straight-through estimator can be put on
WEAK = ("comparison", "item", "indices", "integers")  # they leave the graph in sound code, too
SPELLED = {
    "data": ".data",
    "numpy": ".numpy()",
    "item": ".item()",
    "tolist": ".tolist()",
    "tensor": "torch.tensor(...)",
    "indices": "the indices of a largest value",
    "integers": "a conversion to integers",
    "checkpoint": "re-entrant checkpointing",
    "leaf": "requires_grad_() on a loss that has no gradient",
    "asleep": "requires_grad=False while it ran",
    "create_graph": "autograd.grad without create_graph=True",
}
KEPT = {
    "copy": "a copy of a part that learns",
    "written": "written to by the forward itself",
    "target": "read by the loss alone, as a target",
    "derivative": "the loss reads a derivative that does not depend on it",
    "spare": "a further result, made of the one that is read",
    "last": "what the last block of a stack makes for a next one",
}
PART = 0.5  # of what the named cut frees: another one that frees as much is named too


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the cut and the parameters behind it, and a note of what is kept apart."""
    trainable = trace.where("parameter", trainable=True)
    asleep = trace.where("parameter", asleep=True)
    if not trainable and not asleep:
        raise NotApplicable("no parameter is trainable")
    every = sorted({*trainable, *asleep})
    lost = [
        i
        for i in every
        if i in asleep
        or (trace.sites[i].facts.get("used") and trace.sites[i].facts.get("reachable") is False)
    ]
    apart = [i for i in lost if trace.sites[i].facts.get("apart")]
    blamed = [i for i in lost if i not in apart]
    found = [_name_cut(trace, blamed, every)] if blamed else []
    return found + ([_note(trace, apart, every)] if apart else [])


def _name_cut(trace: Trace, lost: list[int], trainable: list[int]) -> Fault:
    cuts = _find_cuts(trace, lost)
    share = _places.count_numbers(trace, lost) / max(1, _places.count_numbers(trace, trainable))
    names = tuple(trace.sites[i].label for i in lost)
    unread = trace.sites[lost[0]].facts.get("module") or names[0]
    evidence: tuple[Evidence, ...] = (
        Evidence(
            "parameters without a path from the loss", len(lost), unit=f"of {len(trainable)}", limit="0"
        ),
        Evidence("share of the trainable numbers", share),
    )
    if cuts:
        where = cuts[0]["path"] or "(model)"
        what, reached = f"the graph is cut by {_spell(cuts[0])}", " before it"
        if more := [_spell(c) for c in cuts[1:]]:
            what += f", and by {_places.list_first(more)}"
        for cut in cuts[: _places.FIRST]:
            at = cut["path"] or "(model)"
            evidence += (Evidence("the cut", SPELLED.get(cut["how"], cut["how"]), site=at),)
            if line := cut.get("line"):
                evidence += (Evidence("its line", line, site=at),)
        names = (where, *names)
    else:
        what, reached = f"the loss reads nothing that {unread} makes", ""
    return Fault(
        severity="error",
        cause=f"{what}: {len(lost)} trainable parameters{reached} are executed but get no gradient",
        sites=names[: _places.MOST],
        evidence=evidence,
        remedies=(_mend(cuts[0], names[0]) if cuts else _let_it_be_read(unread), _freeze(trace, lost)),
        direction="blocked",
        tier=CUT,
        size=share,
    )


def _spell(cut: GraphCut) -> str:
    """How the graph is left, where, and in which line."""
    line = f" ({cut['line']})" if cut.get("line") else ""
    return f"{SPELLED.get(cut['how'], cut['how'])} in {cut['path'] or '(model)'}{line}"


def _note(trace: Trace, apart: list[int], trainable: list[int]) -> Fault:
    reasons = dict.fromkeys(KEPT[trace.sites[i].facts["apart"]] for i in apart)
    modules = dict.fromkeys(trace.sites[i].facts.get("module") or trace.sites[i].label for i in apart)
    return Fault(
        severity="note",
        cause=f"{len(apart)} trainable parameters get no gradient, as it seems on purpose "
        f"({', '.join(reasons)}): {_places.list_first([*modules])}",
        sites=_places.label(trace, apart),
        evidence=(
            Evidence("parameters without a path from the loss", len(apart), unit=f"of {len(trainable)}"),
        ),
        remedies=(_freeze(trace, apart),),
        direction="none",
        tier=REMARK,
    )


def _find_cuts(trace: Trace, lost: list[int]) -> list[GraphCut]:
    """The cut without which most of what is lost would be reached, and others that free as much.

    Where no value could be followed: the first one at or after the last use of what is lost.
    """
    cuts = trace.facts.get("graph_cuts", [])
    numbers = {trace.sites[i].path: int(trace.sites[i].facts.get("numel", 0)) for i in lost}

    def free(cut: GraphCut) -> int:
        return sum(numbers.get(name, 0) for name in cut.get("frees", ()))

    sure = sorted(
        (c for c in cuts if free(c)), key=lambda c: (c.get("behind", 0), c["how"] in WEAK, -free(c))
    )
    if sure:
        most = free(sure[0])
        rest = [c for c in sure if c["how"] not in WEAK and free(c) >= PART * most]
        places = {(c["path"], c.get("line", "")): c for c in reversed([sure[0], *rest])}
        return list(reversed(places.values()))
    used = max(int(trace.sites[i].facts.get("used_at", -1)) for i in lost)
    after = [c for c in cuts if c["order"] >= used]
    strong = [c for c in after if c["how"] not in WEAK]
    return (strong or after or cuts)[:1]


def _mend(cut: GraphCut, where: str) -> Remedy:
    if cut["how"] in DISCRETE:
        why = "a discrete choice needs an estimator or a relaxation: y = soft + (hard - soft).detach()"
        if cut["how"] not in CHOICES:
            return Remedy("straight-through", (where,), why, safety="advice")
        return Remedy("straight-through", (where,), why, parameters={"choice": cut["how"]})
    if cut["how"] == "checkpoint":
        why = "checkpoint(..., use_reentrant=False), or let its input require a gradient"
        return Remedy("checkpoint-without-reentry", (where,), why, safety="advice")
    if cut["how"] == "create_graph":
        why = "torch.autograd.grad(..., create_graph=True): only then has the gradient a gradient itself"
        return Remedy("keep-the-graph", (where,), why, safety="advice")
    if cut["how"] == "leaf":
        why = "find where the loss lost its graph; requires_grad on it only silences the error"
        return Remedy("keep-the-graph", (where,), why, safety="advice")
    if cut["how"] == "asleep":
        why = "set requires_grad before the forward and leave it until the backward has ended"
        return Remedy("keep-awake", (where,), why, safety="advice")
    return Remedy("remove-detach", (where,), "the gradient then reaches what comes before")


def _let_it_be_read(unread: str) -> Remedy:
    why = "let the loss read what it makes, or leave it out of the forward"
    return Remedy("use-output", (unread,), why, safety="advice")


def _freeze(trace: Trace, lost: list[int]) -> Remedy:
    names = tuple(trace.sites[i].label for i in lost[: _places.MOST])
    return Remedy("freeze", names, "if they shall not learn, say so", safety="advice")


def sick() -> Case:
    """An encoder whose output is detached."""
    return _case(cut=True)


def healthy() -> Case:
    """A detached copy for monitoring beside the real path, and a frozen encoder."""
    return _case(cut=False)


def _case(cut: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Pair(nn.Module):
        """An encoder and a head."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.frozen, self.head = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 4)
            self.frozen.requires_grad_(False)
            self.size = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.encoder(x))
            self.size.fill_(float(h.detach().norm()))
            with torch.no_grad():
                h = h + self.frozen(x) if not cut else h
            out: Tensor = self.head(h.detach() if cut else torch.relu(self.encoder(x)))
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Pair(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="an encoder and a head",
        )
