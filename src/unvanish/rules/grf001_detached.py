"""The autograd graph is cut: trainable parameters are executed, but the loss cannot reach them.

Why it harms

Behind a cut there is no gradient at all, not a small one: after `backward()` the parameters'
`.grad` is None, optimizers skip them silently, and the part stays as it was initialised.

    h = encoder(x).detach()      loss(head(h), y).backward()      # encoder learns nothing

How it is measured

On the graph: a trainable parameter that went into an operation, and no path from the loss to it.
The places where the graph was left (`detach`, `.data`, `no_grad`, NumPy, `item`, `argmax`,
comparisons) are noted on the way forward; the first one after the last use of such a parameter is
named.

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

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy
from unvanish.core.facts import GraphCut
from unvanish.core.trace import Trace

NEEDS = ("static", "step")
EXPLAINS = ("GRF002", "INI001", "DEP001", "ATT002", "GRF004", "ACT003")


def check(trace: Trace) -> Iterable[Finding]:
    """One finding naming the cut and the parameters behind it."""
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
    cut = _cut(trace, max(int(trace.sites[i].facts.get("used_at", -1)) for i in lost))
    count = sum(int(trace.sites[i].facts.get("numel", 0)) for i in lost)
    total = sum(int(trace.sites[i].facts.get("numel", 0)) for i in trainable)
    share = count / max(1, total)
    unread = trace.sites[lost[0]].facts.get("module") or trace.sites[lost[0]].label
    if cut:
        what = f"the graph is cut by {_words(cut['how'])} in {cut['path'] or '(model)'}"
        cause = f"{what}: {len(lost)} trainable parameters before it are executed but get no gradient"
    else:
        what = f"the loss reads nothing that {unread} makes"
        cause = f"{what}: {len(lost)} trainable parameters are executed but get no gradient"
    evidence = (
        Evidence("parameters without a path from the loss", len(lost), f"of {len(trainable)}", "0"),
        Evidence("share of the trainable numbers", share),
        *((Evidence("the cut", _words(cut["how"]), "", "", cut["path"] or "(model)"),) if cut else ()),
    )
    sites = ((cut["path"] or "(model)",) if cut else ()) + tuple(trace.sites[i].label for i in lost)
    remedies = [Remedy("remove-detach", sites[:1], "the gradient then reaches what comes before")]
    if not cut:
        why = "let the loss read what it makes, or leave it out of the forward"
        remedies = [Remedy("use-output", (unread,), why, "advice")]
    elif cut["how"] in ("argmax", "comparison", "argsort", "sampling"):
        remedies = [
            Remedy("straight-through", sites[:1], "a discrete choice needs an estimator or a relaxation")
        ]
    remedies.append(
        Remedy(
            "freeze",
            tuple(trace.sites[i].label for i in lost[:12]),
            "if they shall not learn, say so",
            "exact",
        )
    )
    return [
        Finding(
            "GRF001",
            "detached",
            "error",
            cause,
            sites[:12],
            evidence,
            tuple(remedies),
            "blocked",
            100 + 10 * share,
        )
    ]


def _words(how: str) -> str:
    return {
        "data": ".data",
        "no_grad": "no_grad",
        "numpy": ".numpy()",
        "item": ".item()",
        "tolist": ".tolist()",
    }.get(how, how)


def _cut(trace: Trace, used: int) -> GraphCut | None:
    """The first place where the graph was left at or after the last use of what is lost."""
    cuts = trace.facts.get("graph_cuts", [])
    after = [c for c in cuts if c["order"] >= used]
    strong = [c for c in after if c["how"] not in ("comparison", "item")]
    return next(iter(strong or after or cuts), None)


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
