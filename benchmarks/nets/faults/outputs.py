"""OUT001 saturated output, OUT002 double softmax, OUT003 saturated logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.nets import hosts
from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import changed, flat, times, unless
from benchmarks.nets.losses import draw_task
from benchmarks.nets.net import Net, Plant
from benchmarks.nets.operations import Ending
from benchmarks.nets.reading import Reading


def ended(net: Net, kind: str, module: bool) -> Net:
    """The net with a last non-linearity; names move below `net.`."""

    def lift(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"net.{name}" for name in names)

    return net.but(
        model=Ending(net.model, kind, module),
        stream=lift(net.stream),
        layers=lift(net.layers),
        attentions=lift(net.attentions),
        cut=lift(net.cut),
        head=f"net.{net.head}",
        sequence=f"net.{net.sequence}" if net.sequence else "",
        facts={"ending": kind, "module": module},
    )


def saturated_output(draw: Draw) -> Plant:
    """OUT001: a squashed output, far in its flat region at wrong targets, under a squared error."""
    kind = draw.pick("sigmoid", "sigmoid", "tanh", "softmax")
    task = replace(draw_task(draw, "mse"), classes=draw.randint(3, 8))
    base = ended(hosts.host(draw, task), kind, draw.chance(0.5))
    well = base.but(batch=(base.batch[0], extremes(kind, base.batch[1])))
    reason = draw.pick("weights", "bias") if kind != "softmax" else "weights"
    factor, shift = draw.log_uniform(100, 1000), draw.uniform(14, 30) * draw.pick(1, -1)

    def change(head: nn.Module) -> None:
        assert isinstance(head.weight, Tensor) and isinstance(head.bias, Tensor)
        if reason == "weights":
            head.weight.mul_(factor)
        else:
            head.bias.add_(shift)

    sick = changed(well, [well.head], change, reason=reason)

    def symptom(sick_reading: Reading, well_reading: Reading) -> str:
        slope, wrong = output_state(sick)
        healthy_slope, _ = output_state(well)
        return unless(
            finite=sick_reading.finite,
            flat_output=slope <= 0.02,
            wrong=wrong >= 0.35,
            well_steep=healthy_slope >= 0.08,
            well_flat=flat(well_reading),
        )

    return Plant(sick, well, symptom)


def extremes(kind: str, y: Tensor) -> Tensor:
    """Targets at the ends of the output's range: 0/1, -1/1, or one-hot."""
    if kind == "softmax":
        return F.one_hot(torch.randint(0, y.shape[-1], y.shape[:-1]), y.shape[-1]).float()
    return (y > 0).float() if kind == "sigmoid" else torch.sign(y)


@torch.no_grad()
def output_state(net: Net) -> tuple[float, float]:
    """(mean slope of the ending, mean |p - y| in units of the range)."""
    model, (x, y) = copy.deepcopy(net.model).double(), net.batch
    p = model(x.double() if x.is_floating_point() else x)
    if net.facts["ending"] == "tanh":
        return float((1 - p**2).mean()), float((p - y).abs().mean()) / 2
    wrong = (p - y).abs().sum(-1).mean() / 2 if net.facts["ending"] == "softmax" else (p - y).abs().mean()
    return float((p * (1 - p)).mean()), float(wrong)


def double_softmax(draw: Draw) -> Plant:
    """OUT002: probabilities handed to a loss that expects logits, in the model or in the loss."""
    kind = draw.pick("cross-entropy", "cross-entropy", "bce")
    ending = "softmax" if kind == "cross-entropy" else "sigmoid"
    well = hosts.host(draw, draw_task(draw, kind))
    place = draw.pick("module", "call", "loss")
    if place == "loss":
        sick = well.but(loss=replace(well.loss, before=ending), facts={"place": place})
    else:
        sick = ended(well, ending, place == "module").but(facts={"place": place})

    def symptom(sick: Reading, well: Reading) -> str:
        bound = sick.output <= 1.0 or place == "loss"
        last = next(n for n in sick.norms if n.endswith("head.weight"))
        damped = sick.norms[last] < well.norms[last.removeprefix("net.")]
        return unless(finite=sick.finite, probabilities=bound, damped=damped, well_flat=flat(well))

    return Plant(sick, well, symptom)


def huge_logits(draw: Draw) -> Plant:
    """OUT003: a last layer so large that the logits saturate the loss."""
    well = hosts.host(draw, draw_task(draw, "cross-entropy", "bce"))
    factor = draw.log_uniform(100, 1e4)
    sick = changed(well, [well.head], times(factor), factor=factor)

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            finite=sick.finite, huge=sick.output >= 100, well_small=well.output <= 15, well_flat=flat(well)
        )

    return Plant(sick, well, symptom)


PLANTS: dict[str, Callable[[Draw], Plant]] = {
    "OUT001": saturated_output,
    "OUT002": double_softmax,
    "OUT003": huge_logits,
}
