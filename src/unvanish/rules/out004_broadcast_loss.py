"""The loss compares shapes that differ, so broadcasting pairs every sample with every other one.

Why it harms

An output of shape (N, 1) against targets of shape (N,) makes an N x N table:

    mean over i, j of (p_i - y_j)^2,  least at p_i = mean(y) for every i

so the best the network can do is the mean of the targets, whatever its input is. Nothing raises,
the loss falls a little, and stays.

An example

    p = head(h)                                  # (64, 1)
    loss = nn.functional.mse_loss(p, y)          # y: (64,)
    loss = nn.functional.mse_loss(p[:, 0], y)    # as it should be

How it is measured

The shapes that meet in the loss: a tensor that depends on the output or on parameters, and one that
does not, in a difference, a product, a choice, or in one of torch's losses. If each of the two is
repeated along an axis of the same length, and that is the number of samples or the other one is
made of the batch's targets, every sample meets every other. In torch's own losses it is an error
too if the output alone is repeated for several targets a sample, and a note if the target is. Only
what the loss reaches counts.

Two values of one standing, both with a gradient or both without (returns less detached values, an
entropy less a value), are judged by what comes next: it is a slip if the table is summed up whole
before anything else of its size meets it.

Limits

None: shapes are equal or not.

Remedies

Give both the same shape: `output.squeeze(-1)`, or `y[:, None]` (retrain). The cure reshapes the
targets to the shape of the output.

When it is wrong

A table of all pairs can be meant: distances, kernels, contrastive losses. They are left alone if
the loss inserts the axis itself (`x[:, None] - y`), if both sides have as many axes, or if both
are views of one tensor. A single sample (N = 1) hides the fault.

References: the documentation of torch.broadcast_tensors, and torch's own warning, "Using a target
size that is different to the input size".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.facts import Shape
from unvanish.core.loss_facts import BroadcastFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import NO_STEP, REMARK, Tier

NEEDS = ("static",)
EXPLAINS = ("OUT001", "OUT003", "INI001", "DEP003")
ORDER = ("samples x samples", "output repeated", "target repeated")
FOUND: dict[str, tuple[Severity, Tier, str]] = {
    "samples x samples": (
        "error",
        NO_STEP,
        "every sample meets the values of all {n} samples, and the best answer is the same for all",
    ),
    "output repeated": ("warning", NO_STEP, "one output is compared with {n} targets of its sample"),
    "target repeated": ("note", REMARK, "one target is repeated {n} times to fit the output"),
}


def check(trace: Trace) -> Iterable[Fault]:
    """One fault for the worst place at which the loss broadcasts output and targets."""
    if not trace.where("output"):
        raise NotApplicable("no loss was seen")
    met = trace.facts.get("broadcasts", [])
    if not met:
        return []
    worst = min(met, key=lambda f: ORDER.index(f["how"]))
    severity, tier, harm = FOUND[worst["how"]]
    ours, other = worst["shapes"]
    where = f"{worst['kind']} at {worst['source']}" if worst["source"] else worst["kind"]
    return [
        Fault(
            severity=severity,
            cause=f"the loss broadcasts {_show(ours)} from the output against {_show(other)} to "
            f"{_show(worst['table'])} ({where}): {harm.format(n=_count_repeats(worst))}",
            sites=("loss",),
            evidence=(
                Evidence("shape on the output's side", _show(ours), limit=f"as the other: {_show(other)}"),
                Evidence("shape that they make together", _show(worst["table"]), site="loss"),
            ),
            remedies=(
                Remedy(
                    "match-target-shape",
                    (),
                    f"output and target of one shape: output.squeeze(-1), or y.view({_show(ours)})",
                    safety="retrain" if worst["how"] == ORDER[0] else "advice",
                ),
            ),
            direction="none",
            tier=tier,
        )
    ]


def _show(shape: Shape) -> str:
    return str(tuple(shape))


def _count_repeats(met: BroadcastFacts) -> int:
    """How many numbers each of the repeated side meets."""
    ours, other = met["shapes"]
    least = [n for n in (_multiply(ours), _multiply(other)) if n]
    side = _multiply(ours) if met["how"] == "output repeated" else _multiply(other)
    return _multiply(met["table"]) // (max(least) if met["how"] == ORDER[0] else side)


def _multiply(shape: Shape) -> int:
    product = 1
    for n in shape:
        product *= n
    return product


def sick() -> Case:
    """An output of shape (64, 1) against targets of shape (64,)."""
    return _case(flat=True)


def healthy() -> Case:
    """The same with targets of shape (64, 1)."""
    return _case(flat=False)


def _case(flat: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
        x = torch.randn(64, 16)
        y = x[:, :4].sum(1)
        batch = x, y if flat else y[:, None]
        return Case(net, batch, nn.MSELoss(), story="an output of shape (64, 1), targets of shape (64,)")
