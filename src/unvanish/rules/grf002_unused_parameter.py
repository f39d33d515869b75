"""Trainable parameters that the forward pass never uses.

Why it harms

They cost memory and optimizer state, decay to zero under weight decay, break
DistributedDataParallel (which waits for their gradients), and usually mean that a part was
forgotten.

An example

    self.norm = nn.LayerNorm(d)          # and forward() never calls self.norm

How it is measured

A trainable parameter whose module was not called, or that went into no operation of this forward
pass, and that the loss does not reach.

Limits

None: a parameter is used or not.

Remedies

Use the part, or remove it (advice). Freeze it, if it serves later (advice).

When it is wrong

Parts that only some batches or phases use: auxiliary heads, mask tokens, experts that were not
chosen.

References: The PyTorch documentation, DistributedDataParallel, find_unused_parameters.
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import PART

NEEDS = ("static",)


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the parameters that nothing uses."""
    trainable = trace.where("parameter", trainable=True)
    if not trainable:
        raise NotApplicable("no parameter is trainable")
    idle = [
        i
        for i in trainable
        if not trace.sites[i].facts.get("used", True) and not trace.sites[i].facts.get("reachable")
    ]
    if not idle:
        return []
    count = _places.count_numbers(trace, idle)
    owners = tuple(dict.fromkeys(trace.sites[i].facts.get("module") or trace.sites[i].path for i in idle))
    sites = tuple(trace.sites[i].label for i in idle)[: _places.MOST]
    return [
        Fault(
            severity="warning",
            cause=f"{len(idle)} trainable parameters ({count} numbers) are never used by this forward "
            f"pass: {_places.list_first(owners)}",
            sites=sites,
            evidence=(
                Evidence("unused parameters", len(idle), unit=f"of {len(trainable)}", limit="0"),
                Evidence("numbers in them", count),
            ),
            remedies=(
                Remedy(
                    "use-or-remove",
                    owners[: _places.MOST],
                    "call the part in forward, or delete it",
                    safety="advice",
                ),
                Remedy("freeze", sites, "if it serves later, say so", safety="advice"),
            ),
            direction="blocked",
            tier=PART,
        )
    ]


def sick() -> Case:
    """A norm that forward never calls."""
    return _case(call=False)


def healthy() -> Case:
    """Every part is called."""
    return _case(call=True)


def _case(call: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Net(nn.Module):
        """A layer, a norm, a parameter used as a plain factor, and a head."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm, self.head = nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 4)
            self.gain = nn.Parameter(torch.ones(32))

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.layer(x)) * self.gain
            out: Tensor = self.head(self.norm(h) if call else h)
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(
            Net(),
            (torch.randn(32, 16), torch.randint(0, 4, (32,))),
            nn.CrossEntropyLoss(),
            story="a forgotten norm",
        )
