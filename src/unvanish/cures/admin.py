"""Admin: post-normalisation whose skips are as strong as all branches before them, measured on a batch.

What it does

norm(omega_i x + f_i(x)) with omega_i^2 = sum over j < i of Var f_j, the variances of the branches' outputs on
one batch. That keeps each branch's weight in its sum small, so a step moves the output little. As a LayerNorm
does not see the size of its input, omega is folded into what ends the branch. Needs a batch.

Safety

Another function: for untrained models.

Reference: Liu et al. 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.probes.record import record
from unvanish.surgery.branches import branches, example, scale
from unvanish.surgery.surgery import Surgery, SurgeryError

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The weights that end the branches, in order."""
    found = branches(trace)
    if found:
        yield replace(remedy, targets=tuple(b.end[0] for b in found), parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Divide the ends of the branches, named by their weights, by omega."""
    if surgery.batch is None:
        raise SurgeryError("admin measures a batch; pass one: apply(model, prescription, batch=batch)")
    trace = record(surgery.model, surgery.batch, surgery.loss)
    sizes = {}
    for i in trace.where("node"):
        for name in trace.sites[i].facts.get("parameters", ())[:1]:
            sizes[name] = trace.value(i, "forward_rms") ** 2
    total = 1.0
    for name in targets:
        if name not in sizes:
            raise SurgeryError(f"admin: {name} did not run on this batch")
        omega = max(1.0, total**0.5)
        stem = name.rpartition(".")[0]
        beside = [
            n for n in (name, f"{stem}.bias") if any(n == k for k, _ in surgery.model.named_parameters())
        ]
        scale(surgery, tuple(beside), 1 / omega, f"divided by {omega:.4g}")
        total += sizes[name]


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return ["x = norm(omega[i] * x + branch[i](x))  # omega[i] ** 2 = 1 + sum of branch[j](x).var(), j < i"]


def case() -> tuple[Case, Remedy]:
    """Sixteen post-norm blocks."""
    net, batch = example(post=True)
    targets = tuple(f"{i}.two.weight" for i in range(16))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "admin", targets, "skips as strong as what came before"
    )
