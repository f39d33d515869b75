"""Admin: scales post-norm branches by the variance of all branches before them, measured on a batch.

What it does

norm(omega_i x + f_i(x)) with omega_i^2 = sum over j < i of Var f_j, the variances of the branches' outputs on
one batch. That keeps each branch's weight in its sum small, so a step moves the output little. A LayerNorm
ignores the scale of its input, so omega is folded into the last layer of the branch. Needs a batch.

Safety

It changes the function: for untrained models.

Reference: Liu et al. 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.probes.record import record
from unvanish.surgery.branches import branches, example, scale_parameters
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The weights that end the branches, in order."""
    found = branches(trace)
    if found:
        yield replace(remedy, targets=tuple(b.end[0] for b in found), parameters={}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...]) -> None:
    """Divide the last layers of the branches, named by their weights, by omega."""
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
        scale_parameters(surgery, tuple(beside), 1 / omega, f"divided by {omega:.4g}")
        total += sizes[name]


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    return [
        f"layers = [model.get_submodule(n.rpartition('.')[0]) for n in {list_names(remedy.targets)}]",
        "power = {}  # of what the branches add",
        "look = lambda m, _, out: power.__setitem__(m, out.detach().square().mean())",
        "hooks = [layer.register_forward_hook(look) for layer in layers]",
        "model(x)",
        "total = 1.0",
        "for layer, hook in zip(layers, hooks):",
        "    hook.remove()",
        "    for p in layer.parameters(recurse=False):",
        "        p.data /= max(1.0, float(total) ** 0.5)",
        "    total += power[layer]",
    ]


def case() -> tuple[Case, Remedy]:
    """Sixteen post-norm blocks."""
    net, batch = example(post=True)
    targets = tuple(f"{i}.two.weight" for i in range(16))
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "admin", targets, "skips as strong as what came before"
    )
