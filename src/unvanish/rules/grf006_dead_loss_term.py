"""A term of the loss depends on what the model computes and carries no gradient: it moves nothing.

Why it harms

The number that is logged contains the term, and the weights never learn of it: a penalty that
does not penalise, an accuracy that is not optimised. Nothing is raised, since the other terms
have their gradients.

An example

    loss = cross_entropy(out, y) + 0.1 * penalty(out).item()     # the penalty trains nothing

How it is measured

The loss is taken apart along the additions, scalings and means of single numbers. A term is dead
if its value was taken off the graph (`detach`, `item`, `argmax`, a comparison, no_grad) from
something that depends on a parameter, or if every path from it to a parameter crosses a rounding
or a sign, or if it is one of torch's losses neither side of which has a gradient. A number of
Python counts if it is one that `.item()` gave, or one less it, times a factor of at most three
digits.

Stop-gradients that are a target, a weight, a baseline or an advantage multiply or are compared
with what learns; they are no terms. A term that is 0, and one that was made of what it is added
to, as in x + (y - x).detach(), are innocent.

Limits

None: a term has a path to a parameter or not.

Remedies

Leave the value on the graph, or use a form of it that has a slope: soft counts for an accuracy,
sigmoid or tanh for a sign (advice). A term that is only logged need not be added (advice).

When it is wrong

A constant that shifts the reported loss, which is harmless. A tensor made of a NumPy array
cannot be followed, and terms that are added sample by sample, before the mean, are not looked
at.

References: The PyTorch documentation, autograd mechanics; Bengio et al. 2013 (straight-through).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import DeadTermFacts
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import STEPS

NEEDS = ("static", "step")
IDLE = "idle "  # before the kind of a loss that compares what does not learn
SPELLED = {"create_graph": "autograd.grad without create_graph=True"}


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the dead terms."""
    if not trace.where("parameter", reachable=True):
        raise NotApplicable("the loss reaches no parameter")
    terms = trace.facts.get("dead_terms", [])
    if not terms:
        return []
    spelled = tuple(dict.fromkeys(_spell(term) for term in terms))
    value = math.fsum(term["adds"] for term in terms if not math.isnan(term["adds"]))
    where = tuple(dict.fromkeys(term["path"] or "(model)" for term in terms))
    count = "a term of the loss carries" if len(spelled) == 1 else f"{len(spelled)} terms of the loss carry"
    return [
        Fault(
            severity="warning",
            cause=f"{count} no gradient: {_list_reasons(terms, spelled)}; the weights never learn of it",
            sites=where[: _places.MOST],
            evidence=(
                Evidence("dead terms", len(spelled), limit="0"),
                *((Evidence("what they add to the loss", value),) if value else ()),
                *(Evidence("its line", t["line"], site=t["path"]) for t in terms[:1] if t["line"]),
            ),
            remedies=(
                Remedy(
                    "keep-the-graph",
                    where[: _places.MOST],
                    _advise(terms),
                    safety="advice",
                ),
            ),
            direction="blocked",
            tier=STEPS,
        )
    ]


def _advise(terms: list[DeadTermFacts]) -> str:
    if any(term["how"] == "create_graph" for term in terms):
        return "torch.autograd.grad(..., create_graph=True): only then has the gradient a gradient itself"
    return "leave it on the graph, or use a form of it with a slope; if it is only for the log, do not add it"


def _list_reasons(terms: list[DeadTermFacts], spelled: tuple[str, ...]) -> str:
    """What took the terms off the graph, or that neither side of a loss learns."""
    if all(term["how"].startswith(IDLE) for term in terms):
        return f"{_places.list_first(spelled)} compares what does not learn"
    return f"taken off the graph by {_places.list_first(spelled)}"


def _spell(term: DeadTermFacts) -> str:
    line = f" ({term['line']})" if term["line"] else ""
    return f"{SPELLED.get(term['how'], term['how'].removeprefix(IDLE))} in {term['path'] or '(model)'}{line}"


def sick() -> Case:
    """A penalty that is detached."""
    return _case(dead=True)


def healthy() -> Case:
    """A penalty with a gradient, a detached weight, and a value that is swapped straight through."""
    return _case(dead=False)


def _case(dead: bool) -> Case:
    import torch
    from torch import Tensor, nn

    def loss(out: Tensor, y: Tensor) -> Tensor:
        error = nn.functional.cross_entropy(out, y)
        penalty = out.square().mean()
        if dead:
            return error + 0.1 * penalty.detach()
        total: Tensor = error + 0.1 * penalty * (error / penalty).detach()
        return total + (error - total).detach()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        return Case(net, (torch.randn(32, 16), torch.randint(0, 4, (32,))), loss, story="a loss of two terms")
