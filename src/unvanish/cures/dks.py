"""DKS: shifts and scales a smooth activation for the depth, gamma (phi(alpha x + beta) + delta).

What it does

Four numbers make the function keep lengths (Q(1) = Q'(1) = 1), map uncorrelated samples to uncorrelated ones
(C(0) = 0) and stretch angles by zeta = 1.5 over all layers together (C'(1)^L = zeta). A plain net of any
depth then behaves like a shallow one. Weights are drawn orthogonal with gain one, biases zero.

Safety

It changes the function: for untrained models. It is for smooth functions; for rectifiers use `tat`.

Reference: Martens et al. 2021.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures import reinitialise
from unvanish.surgery.activations import function
from unvanish.surgery.anatomy import Anatomy, round_digits
from unvanish.surgery.names import list_names, split_calls, split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.rewire import Calls, Rewire
from unvanish.surgery.surgery import Surgery
from unvanish.theory.shaping import dks

SAFETY = "retrain"
KINDS = ("tanh", "gelu", "silu", "softplus", "sigmoid", "mish")


class Shaped(nn.Module):
    """gamma * (phi(alpha x + beta) + delta)."""

    def __init__(self, name: str, alpha: float, beta: float, gamma: float, delta: float) -> None:
        super().__init__()
        self.name, self.alpha, self.beta, self.gamma, self.delta = name, alpha, beta, gamma, delta

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gamma * (function(self.name)(self.alpha * x + self.beta) + self.delta)
        return out


class ShapedCall:
    """Some calls of an activation, shaped."""

    def __init__(self, shape: tuple[float, ...], chosen: frozenset[int] | None) -> None:
        self.shape, self.chosen = shape, chosen

    def __call__(
        self, calls: Calls, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.chosen is not None and index not in self.chosen:
            return func(*args, **kwargs)
        alpha, beta, gamma, delta = self.shape
        return gamma * (func(alpha * args[0] + beta, *args[1:], **kwargs) + delta)


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """All activations of the net's only smooth kind, and the weights that read them."""
    anatomy = Anatomy(trace)
    sites = [anatomy.site(i) for i in anatomy.sites("activation") if anatomy.site(i).kind in KINDS]
    kinds = {s.kind for s in sites}
    hidden = [x for x in anatomy.layers if x.source in kinds and not x.head]
    if len(kinds) == 1 and hidden:
        kind = kinds.pop()
        shape = dks(kind, len(hidden))
        numbers = {k: round_digits(float(v)) for k, v in vars(shape).items()}
        settings = {"activation": kind, **numbers, "weights": [x.weight for x in hidden]}
        yield replace(remedy, targets=tuple(s.label for s in sites), parameters=settings, safety="retrain")


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    activation: str = "tanh",
    alpha: float = 1.0,
    beta: float = 0.0,
    gamma: float = 1.0,
    delta: float = 0.0,
    weights: list[str] = [],  # noqa: B006
) -> None:
    """Shape the activations at `targets`; draw the `weights` with gain one."""
    if activation not in KINDS:
        raise SurgeryError(f"dks: no shape for {activation!r}; use one of {', '.join(KINDS)}, or tat")
    calls: dict[str, set[int]] = {}
    for target in targets:
        path, index = split_label(target)
        if path and surgery.has(path):
            surgery.swap(path, Shaped(activation, alpha, beta, gamma, delta), f"shaped {activation}")
        else:
            calls.setdefault(path.rpartition(".")[0], set()).add(index)
    for parent, indices in calls.items():
        chosen = None if indices == set(range(len(indices))) else frozenset(indices)
        handler = ShapedCall((alpha, beta, gamma, delta), chosen)
        surgery.graft(parent, Rewire({activation: handler}), f"calls of {activation} shaped")
    reinitialise.apply(surgery, tuple(weights), gain=1.0, method="orthogonal")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    p = remedy.parameters
    gamma, alpha, beta, delta = (
        f"{p.get(k, d):.4g}" for k, d in (("gamma", 1.0), ("alpha", 1.0), ("beta", 0.0), ("delta", 0.0))
    )
    kind = p.get("activation", "tanh")
    if kind not in KINDS:
        raise ValueError(f"there is no shape for {kind!r}")
    modules, calls = split_calls(remedy.targets, KINDS)
    shaped = f"lambda m, args, out: {gamma} * (act({alpha} * args[0] + {beta}) + {delta})"
    lines = [
        f"act = torch.{kind}" if kind in ("tanh", "sigmoid") else f"act = nn.functional.{kind}",
        f"for name in {list_names(modules)}:",
        f"    model.get_submodule(name).register_forward_hook({shaped})",
    ]
    told = [f"# in the forward: {gamma} * ({kind}({alpha} * x + {beta}) + {delta})"]
    weights = tuple(map(str, p.get("weights", ())))
    drawn = {"gain": 1.0, "method": "orthogonal"}
    redraw = reinitialise.code(replace(remedy, targets=weights, parameters=drawn)) if weights else []
    return [*(lines if modules else []), *(told if calls else []), *redraw]


def case() -> tuple[Case, Remedy]:
    """Thirty tanh layers."""
    torch.manual_seed(0)
    parts = [p for _ in range(30) for p in (nn.Linear(24, 24), nn.Tanh())]
    net = nn.Sequential(*parts, nn.Linear(24, 3))
    batch = torch.randn(16, 24), torch.randint(0, 3, (16,))
    targets, weights = tuple(str(2 * i + 1) for i in range(30)), [f"{2 * i}.weight" for i in range(1, 30)]
    settings = {"activation": "tanh", **vars(dks("tanh", 30)), "weights": weights}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "dks", targets, "a shape for the depth", "retrain", settings
    )
