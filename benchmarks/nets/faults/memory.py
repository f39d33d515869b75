"""REC001 vanishing and REC002 exploding through time; ATT001 entropy collapse, ATT002 query starvation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import changed, flat, some, twins, unless
from benchmarks.nets.health import RATIO, SICK
from benchmarks.nets.net import Net, Plant
from benchmarks.nets.reading import Reading
from benchmarks.nets.recurrent import TimeShape, draw_time, recurrent
from benchmarks.nets.transformers import draw_transformer, transformer


def quiet(net: Net, factor: float = 0.1) -> Net:
    """The net with small input-to-hidden weights and biases, so that the recurrence alone decides."""
    with torch.no_grad():
        for name, parameter in net.model.named_parameters():
            if "_ih" in name or "x2h" in name or "bias_hh" in name:
                parameter.mul_(factor)
    return net


def kept(reading: Reading) -> bool:
    """True where the gradient is kept over time."""
    return abs(reading.through_time) <= RATIO


def forgets(draw: Draw) -> Plant:
    """REC001: a small recurrent gain, or PyTorch's default over many steps, read out only at the end."""
    mode = draw.pick("small gain", "default", "default")
    cell = "rnn" if mode == "small gain" else draw.pick("rnn", "gru", "lstm", "lstm")
    gain = draw.uniform(0.4, 0.85) if mode == "small gain" else 1.0
    steps = draw.randint(24, 90)
    if mode == "small gain":
        steps = min(90, math.ceil(draw.uniform(SICK + 2, 35) / -math.log(gain)) + 2)
    shape = draw_time(draw, cell, steps, readout="last", layers=draw.pick(1, 1, 2))
    cure = shape.but(init="orthogonal" if cell == "rnn" else "chrono", gain=1.0)
    bad = cure.but(gain=gain) if mode == "small gain" else shape.but(init="default")
    return through_time(draw, bad, cure, mode, -1)


def blows(draw: Draw) -> Plant:
    """REC002: a recurrent gain above what the nonlinearity takes back."""
    nonlinearity, init = draw.pick(("relu", "identity"), ("relu", "orthogonal"), ("tanh", "orthogonal"))
    cell = draw.pick("rnn", "rnn", "rnn", "lstm")
    gain = draw.uniform(1.2, 2.0) if nonlinearity == "relu" else draw.uniform(2.0, 4.0)
    steps = draw.randint(24, 90)
    if nonlinearity == "relu":
        steps = min(80, math.ceil(draw.uniform(SICK + 4, 30) / math.log(gain)) + 2)
    shape = draw_time(draw, cell, steps, readout="last", nonlinearity=nonlinearity, layers=1)
    if cell == "lstm":
        bad, cure = shape.but(init="orthogonal", gain=draw.uniform(4, 9)), shape.but(init="chrono")
    else:
        one = 2**0.5 if (nonlinearity, init) == ("relu", "orthogonal") else 1.0  # a ReLU halves the square
        bad, cure = shape.but(init=init, gain=gain * one), shape.but(init=init, gain=one)
    return through_time(draw, bad, cure, nonlinearity if cell == "rnn" else cell, +1)


def through_time(draw: Draw, bad: TimeShape, cure: TimeShape, mode: str, sign: int) -> Plant:
    """Two recurrent nets, one of which loses or multiplies the gradient over its steps."""
    factor = draw.choice((0.05, 0.1)) if bad.cell == "rnn" else 1.0
    sick, well = twins(draw, lambda shape: quiet(recurrent(shape), factor), bad, cure)

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(finite=sick.finite, far_off=sign * sick.through_time >= SICK, well_keeps=kept(well))

    return Plant(sick.but(facts={"mode": mode, "gain": bad.gain}), well, symptom)


def sharp_attention(draw: Draw) -> Plant:
    """ATT001: query and key weights so large that every softmax picks one token."""
    well = transformer(draw_transformer(draw, draw.randint(1, 8), order="pre"))
    factor = draw.log_uniform(9, 40)
    names = list(well.attentions)
    if len(names) > 1 and draw.chance(0.4):
        names = some(draw, names, least=max(1, len(names) // 2))
    sick = changed(well, names, lambda module: sharpen(module, factor), factor=factor, planted=names)
    places = [well.attentions.index(name) for name in names]

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            finite=sick.finite,
            sharp=max(sick.entropy[i] for i in places) <= 0.12,
            large=min(sick.logit[i] for i in places) >= 60,
            well_soft=min(well.entropy) >= 0.35,
            well_flat=flat(well),
        )

    return Plant(sick, well, symptom)


def sharpen(module: nn.Module, factor: float) -> None:
    """Scale the query and key projections of torch's or our own attention."""
    if isinstance(module, nn.MultiheadAttention):
        assert module.in_proj_weight is not None
        module.in_proj_weight[: 2 * module.embed_dim] *= factor
        return
    for layer in (module.q, module.k):
        assert isinstance(layer, nn.Linear)
        layer.weight.mul_(factor)


def starved_queries(draw: Draw) -> Plant:
    """ATT002: attention without a skip around it makes all tokens alike: queries get no gradient."""
    shape = draw_transformer(draw, draw.randint(4, 14), order="bare", form=draw.pick("softmax", "sdpa"))
    shape = shape.but(feedforward=draw.chance(0.6))
    sick, well = twins(draw, transformer, shape, shape.but(order="pre"))
    return Plant(sick, well, starves)


def starves(sick: Reading, well: Reading) -> str:
    """The symptom: equal tokens and queries without gradient, while the depth profile looks fine."""
    return unless(
        finite=sick.finite,
        tokens_alike=max(sick.tokens) >= 0.999,
        starved=min(sick.starvation) <= 1e-3,
        depth_fine=flat(sick),
        well_fed=min(well.starvation) >= 1e-2,
        well_flat=flat(well),
    )


PLANTS: dict[str, Callable[[Draw], Plant]] = {
    "REC001": forgets,
    "REC002": blows,
    "ATT001": sharp_attention,
    "ATT002": starved_queries,
}
