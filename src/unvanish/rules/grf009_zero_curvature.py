"""A second derivative that the loss asks for is exactly zero: the activations are straight pieces.

Why it harms

A network of linear layers and ReLU is piecewise linear in its input,

    u(x) = a x + b,   u'' = 0

almost everywhere. A physics-informed loss that needs u_xx, a Laplacian or the trace of a Hessian
reads a zero whatever the weights are: the term fits nothing, and the others are fitted in its
place. Nothing is raised.

An example

    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))
    u_x = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0][:, :1]
    u_xx = torch.autograd.grad(u_x.sum(), x, create_graph=True)[0][:, :1]     # all zeros

How it is measured

Each `torch.autograd.grad` of the forward and the loss is looked at: its outputs were made of an
earlier one that is not zero, its result is zero in every number, and a rectifier or another
activation of straight pieces ran before it.

Limits

None: a number is zero or not.

Remedies

tanh, softplus, SiLU or a sine in place of the rectifier (retrain).

When it is wrong

A mixed derivative that is zero by the design of the model, as of f(x) + g(y). An ansatz that
multiplies the network by a function of its own has curvature, and hides that the network has
none. First derivatives alone, as in a gradient penalty, need none.

References: Raissi et al. 2019 (physics-informed networks); Sitzmann et al. 2020 (sines).
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import CurvatureFacts
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import FLAT

NEEDS = ("step",)
EXPLAINS = ("GRF001", "GRF002", "GRF004", "GRF007", "DEP003", "ACT003")


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming where the second derivative is taken, and the activations."""
    if not trace.where("parameter", trainable=True):
        raise NotApplicable("no parameter is trainable")
    flat = trace.facts.get("flat_curvatures", [])
    return [_report(flat)] if flat else []


def _report(flat: list[CurvatureFacts]) -> Fault:
    first = flat[0]
    line = f" ({first['line']})" if first["line"] else ""
    known = dict.fromkeys(pair for one in flat for pair in one["activations"])
    kinds = " and ".join(dict.fromkeys(kind for _, kind in known))
    targets = tuple(path or kind for path, kind in known)[: _places.MOST]
    return Fault(
        severity="error",
        cause=f"the second derivative taken in {first['path'] or '(model)'}{line} is exactly zero: between "
        f"its kinks {kinds} is a straight line, so its term in the loss teaches nothing",
        sites=tuple(dict.fromkeys((first["path"] or "(model)", *targets)))[: _places.MOST],
        evidence=(
            Evidence("second derivatives that are zero", len(flat), limit="0"),
            *((Evidence("its line", first["line"]),) if line else ()),
        ),
        remedies=(
            Remedy(
                "swap-activation",
                targets,
                "an activation with curvature: tanh, softplus, silu or a sine",
                parameters={"to": "tanh"},
            ),
        ),
        direction="blocked",
        tier=FLAT,
        size=1.0,
    )


def sick() -> Case:
    """Poisson's equation with ReLU."""
    return _case(smooth=False)


def healthy() -> Case:
    """The same with tanh."""
    return _case(smooth=True)


def _case(smooth: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Poisson(nn.Module):
        """u'' + 1 at the points x, and u at the ends."""

        def __init__(self) -> None:
            super().__init__()
            act = nn.Tanh if smooth else nn.ReLU
            self.net = nn.Sequential(nn.Linear(1, 32), act(), nn.Linear(32, 32), act(), nn.Linear(32, 1))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            return bend + 1, self.net(torch.tensor([[0.0], [1.0]]))

    def loss(out: tuple[Tensor, Tensor], ends: Tensor) -> Tensor:
        return out[0].square().mean() + (out[1] - ends).square().mean()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = torch.rand(32, 1), torch.zeros(2, 1)
        return Case(Poisson(), batch, loss, story="Poisson's equation")
