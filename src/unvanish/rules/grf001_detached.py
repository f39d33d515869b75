"""The autograd graph is cut: trainable parameters are executed, but the loss cannot reach them.

Why it harms

Behind a cut there is no gradient at all, not a small one: after `backward()` the parameters'
`.grad` is None, optimizers skip them silently, and the part stays as it was initialised.

An example

    h = encoder(x).detach()
    loss(head(h), y).backward()          # encoder learns nothing

How it is measured

On the graph: a trainable parameter that went into an operation, and no path from the loss to it.
The places that leave the graph (`detach`, `.data`, `no_grad`, NumPy, `item`, `argmax`, comparisons)
are noted on the way forward; the first one after the last use of such a parameter is named.

Limits

None: a path is there or not.

Remedies

Remove the cut (retrain). For a discrete choice use a straight-through estimator, or a relaxation
such as Gumbel-softmax (retrain). For parameters that shall not learn set requires_grad to False
(exact).

When it is wrong

Target networks and feature extractors are cut off on purpose; then freeze them, which also saves
memory.

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
from unvanish.rules._tiers import CUT

NEEDS = ("static", "step")
EXPLAINS = ("GRF002", "INI001", "DEP001", "ATT002", "GRF004", "ACT003")
DISCRETE = ("argmax", "comparison", "argsort", "sampling")
WEAK = ("comparison", "item")  # they leave the graph in sound code, too
SPELLED = {"data": ".data", "numpy": ".numpy()", "item": ".item()", "tolist": ".tolist()"}


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the cut and the parameters behind it."""
    trainable = trace.where("parameter", trainable=True)
    if not trainable:
        raise NotApplicable("no parameter is trainable")
    lost = [
        i
        for i in trainable
        if trace.sites[i].facts.get("used") and trace.sites[i].facts.get("reachable") is False
    ]
    if not lost:
        return []
    cut = _find_cut(trace, max(int(trace.sites[i].facts.get("used_at", -1)) for i in lost))
    share = _places.count_numbers(trace, lost) / max(1, _places.count_numbers(trace, trainable))
    names = tuple(trace.sites[i].label for i in lost)
    unread = trace.sites[lost[0]].facts.get("module") or names[0]
    evidence: tuple[Evidence, ...] = (
        Evidence(
            "parameters without a path from the loss", len(lost), unit=f"of {len(trainable)}", limit="0"
        ),
        Evidence("share of the trainable numbers", share),
    )
    if cut:
        how, where = SPELLED.get(cut["how"], cut["how"]), cut["path"] or "(model)"
        what, reached = f"the graph is cut by {how} in {where}", " before it"
        evidence += (Evidence("the cut", how, site=where),)
        names = (where, *names)
    else:
        what, reached = f"the loss reads nothing that {unread} makes", ""
    return [
        Fault(
            severity="error",
            cause=f"{what}: {len(lost)} trainable parameters{reached} are executed but get no gradient",
            sites=names[: _places.MOST],
            evidence=evidence,
            remedies=(
                _mend(cut, names[0]) if cut else _let_it_be_read(unread),
                _freeze(trace, lost),
            ),
            direction="blocked",
            tier=CUT,
            size=share,
        )
    ]


def _find_cut(trace: Trace, used: int) -> GraphCut | None:
    """The first place that leaves the graph at or after the last use of what is lost."""
    cuts = trace.facts.get("graph_cuts", [])
    after = [c for c in cuts if c["order"] >= used]
    strong = [c for c in after if c["how"] not in WEAK]
    return next(iter(strong or after or cuts), None)


def _mend(cut: GraphCut, where: str) -> Remedy:
    if cut["how"] in DISCRETE:
        return Remedy("straight-through", (where,), "a discrete choice needs an estimator or a relaxation")
    return Remedy("remove-detach", (where,), "the gradient then reaches what comes before")


def _let_it_be_read(unread: str) -> Remedy:
    why = "let the loss read what it makes, or leave it out of the forward"
    return Remedy("use-output", (unread,), why, safety="advice")


def _freeze(trace: Trace, lost: list[int]) -> Remedy:
    names = tuple(trace.sites[i].label for i in lost[: _places.MOST])
    return Remedy("freeze", names, "if they shall not learn, say so", safety="exact")


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
