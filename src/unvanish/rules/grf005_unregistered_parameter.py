"""Tensors that learn and are no parameters of the model: no optimizer made of its parameters holds
them.

Why it harms

`model.parameters()` lists what is registered: an `nn.Parameter` or a module that is an attribute
of a module. What hangs in a list, a dict, a closure or a plain attribute, or is made anew in the
forward, gets its gradient and is never stepped, moved, saved or loaded.

An example

    self.blocks = [nn.Linear(d, d) for _ in range(4)]     # a list, not an nn.ModuleList

How it is measured

On the graph: a leaf that requires a gradient and that the loss reaches, but that is neither
among the model's parameters nor in the batch. It is looked for in the attributes of the model's
modules, and in what its forward and its loss see as closures or globals; if its memory was taken
in this forward, it is made anew each time.

Innocent are what an inner `autograd.grad` is taken of (collocation points, adversarial steps),
what was taken off the graph and made a leaf again, states and noise with a sample axis, a zero
that a sum starts from, what the given optimizer holds, parameters that are passed in from
outside (`functional_call`), and other models that only the loss reads.

Limits

None: a leaf is registered or not. It is an error if an optimizer is given and lacks it or if it
is made anew in each forward, else a warning; a note if only the loss reads it and no optimizer
is given.

Remedies

Register it: `nn.Parameter` for a tensor, `nn.ModuleList` and `nn.ModuleDict` for a list and a
dict; make it in `__init__`, before the optimizer (advice).

When it is wrong

An optimizer of its own holds it: pass that one with `optimizer=`.

References: The PyTorch documentation, torch.nn.Module, register_parameter; torch.nn.ModuleList.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.facts import ForeignFacts
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import STEPS

NEEDS = ("static", "step")
EXPLAINS = ("GRF002",)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault for what the forward reads, and one for what the loss alone does."""
    if not trace.where("parameter", reachable=True) and not trace.facts.get("foreign"):
        raise NotApplicable("the loss reaches no parameter")
    strange = [leaf for leaf in trace.facts.get("foreign", []) if not leaf["optimised"]]
    inside = [leaf for leaf in strange if not leaf["in_loss"]]
    outside = [leaf for leaf in strange if leaf["in_loss"] and not _belongs_elsewhere(leaf)]
    return [_name(leaves) for leaves in (inside, outside) if leaves]


def _belongs_elsewhere(leaf: ForeignFacts) -> bool:
    """Whether it is a part of another model, which only the loss reads."""
    return leaf["in_module"] and leaf["path"].split(".")[0] != leaf["path"] and leaf["place"] != "made"


def _name(leaves: Sequence[ForeignFacts]) -> Fault:
    names = tuple(dict.fromkeys(leaf["path"] for leaf in leaves))
    numbers = sum(leaf["numel"] for leaf in leaves)
    made = [leaf for leaf in leaves if leaf["place"] == "made"]
    lacking = any(leaf["optimised"] is False for leaf in leaves)
    more, them = ("s", "tensors learn and are") if len(leaves) > 1 else ("", "tensor learns and is")
    line = next((leaf["line"] for leaf in made if leaf["line"]), "")
    where = "made anew in each forward" if made else f"no parameter{more} of the model"
    at = f" ({line})" if line else ""
    severity: Severity = "error" if made or lacking else "note" if leaves[0]["in_loss"] else "warning"
    after = ", and the optimizer lacks them" if lacking else ""
    return Fault(
        severity=severity,
        cause=f"{len(leaves)} {them} {where}{at}: {_places.list_first(names)}{after}",
        sites=names[: _places.MOST],
        evidence=(
            Evidence("leaves that are not registered", len(leaves), limit="0"),
            Evidence("numbers in them", numbers),
        ),
        remedies=(Remedy("register", names[: _places.MOST], _tell(leaves, bool(made)), safety="advice"),),
        direction="blocked",
        tier=STEPS,
        size=1.0,
    )


def _tell(leaves: Sequence[ForeignFacts], made: bool) -> str:
    if made:
        return "make it once, in __init__, as an nn.Parameter or a module, before the optimizer"
    if leaves[0]["in_loss"]:
        return "give it to the optimizer, beside the model's parameters"
    if any(leaf["in_module"] for leaf in leaves):
        return "keep the modules in an nn.ModuleList or nn.ModuleDict, or as attributes of their own"
    return "wrap it in nn.Parameter last (`.to()` gives none), as an attribute or in an nn.ParameterList"


def sick() -> Case:
    """Layers in a plain list."""
    return _case(registered=False)


def healthy() -> Case:
    """Layers in a ModuleList, and noise and a state that require gradients."""
    return _case(registered=True)


def _case(registered: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Net(nn.Module):
        """Blocks and a head."""

        def __init__(self) -> None:
            super().__init__()
            blocks = [nn.Linear(16, 16) for _ in range(2)]
            self.blocks: Any = nn.ModuleList(blocks) if registered else blocks
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x + torch.zeros(len(x), 16, requires_grad=True)
            for block in self.blocks:
                x = x + torch.tanh(block(x))
            out: Tensor = self.head(x)
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Net(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="blocks in a list",
        )
