"""ACT001 saturated, ACT002 contracting, ACT003 dead units."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.nets import activations, plain
from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import changed, flat, normal_biases, some, times, twins, unless
from benchmarks.nets.health import SICK
from benchmarks.nets.net import Plant
from benchmarks.nets.reading import Reading
from benchmarks.nets.transformers import draw_transformer, transformer


def saturated(draw: Draw) -> Plant:
    """ACT001: weights or biases push squashing units into their flat region."""
    activation = draw.pick("tanh", "tanh", "hardtanh", "sigmoid")
    depth = draw.randint(2, 3) if activation == "sigmoid" else draw.log_integer(2, 30)
    shape = plain.draw_shape(draw, draw.pick("mlp", "mlp", "cnn", "autoencoder"), depth, activation)
    if activation == "sigmoid":
        shape = shape.but(gain=1 / activations.critical("sigmoid", shape.q)[0], bias=0.0)
    well = plain.build(shape).but(tolerate=frozenset({"ratio"} if activation == "sigmoid" else ()))
    names = some(draw, well.layers)
    reach = {"tanh": 1.0, "hardtanh": 0.6, "sigmoid": 2.2}[activation]
    reason = draw.pick("weights", "biases")
    if reason == "weights":
        factor = draw.log_uniform(8, 30) * reach
        sick = changed(well, names, times(factor), reason=reason, factor=factor)
    else:
        spread = draw.uniform(8, 20) * reach
        sick = changed(well, names, normal_biases(spread), reason=reason)
    places = [well.layers.index(name) for name in names]

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            finite=sick.finite,
            saturated_where_planted=min(sick.saturated[i] for i in places) >= 0.55,
            well_not_saturated=max(well.saturated) <= 0.3,
            well_flat=flat(well) or activation == "sigmoid",
        )

    return Plant(sick.but(facts={"planted": names}), well, symptom)


def contracting(draw: Draw) -> Plant:
    """ACT002: a slope of at most 1/4 (or 1/6) with weights of unit gain, deep enough to lose the gradient."""
    activation = draw.choice(activations.CONTRACTING)
    gain = draw.uniform(0.85, 1.2)
    a_layer = math.log(gain) + 0.5 * math.log(activations.moments(activation, 1.0)[1])
    family = draw.pick("mlp", "mlp", "cnn", "autoencoder")
    depth = min(60, 2 + math.ceil(draw.uniform(SICK + 1, 50) / -a_layer))
    shape = plain.draw_shape(draw, family, depth, "tanh")
    critical = activations.critical(activation, 1.0)[0]
    bad = shape.but(activation=activation, q=1.0, gain=gain / critical, bias=0.0)
    sick, well = twins(draw, plain.build, bad, shape)

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            vanishes=sick.ratio <= -SICK,
            unsaturated=max(sick.saturated) <= 0.1,
            finite=sick.finite,
            well_flat=flat(well),
        )

    return Plant(sick.but(facts={"gain": gain}), well, symptom)


def dead(draw: Draw) -> Plant:
    """ACT003: most units of some ReLU layers never fire, although the inputs differ."""
    if draw.chance(0.15):
        return dead_feedforward(draw)
    activation = draw.pick("relu", "relu", "relu6")
    family = draw.pick("mlp", "mlp", "cnn", "autoencoder")
    shape = plain.draw_shape(draw, family, draw.log_integer(2, 12), activation)
    well = plain.build(shape.but(batch=max(shape.batch, 16)))
    reason = draw.pick("biases", "biases", "weights") if len(well.layers) > 2 else "biases"
    names = some(draw, well.layers if reason == "biases" else well.layers[1:])
    share = 1.0 if draw.chance(0.1) else draw.uniform(0.62, 0.95)
    kill = push_down(share, draw.uniform(5, 9)) if reason == "biases" else turn_negative(share)
    sick = changed(well, names, kill, reason=reason, share=share, planted=names)
    return Plant(sick, well, dies([well.layers.index(name) for name in names]))


def dead_feedforward(draw: Draw) -> Plant:
    """ACT003 in the feed-forward parts of a transformer."""
    shape = draw_transformer(draw, draw.randint(1, 6), activation="relu")
    net = transformer(shape)
    inner = "linear1" if shape.form == "torch" else "feedforward.0"
    well = net.but(layers=tuple(f"{name}.{inner}" for name in net.stream), activation=torch.relu)
    share = draw.uniform(0.62, 1.0)
    names = some(draw, well.layers)
    sick = changed(
        well, names, push_down(share, draw.uniform(6, 9)), reason="biases", share=share, planted=names
    )
    return Plant(sick, well, dies([well.layers.index(name) for name in names]))


def push_down(share: float, by: float) -> Callable[[nn.Module], None]:
    """Biases of a share of the units far below zero."""

    def change(module: nn.Module) -> None:
        bias = module.bias
        assert isinstance(bias, Tensor)
        chosen = torch.randperm(len(bias))[: math.ceil(share * len(bias))]
        bias[chosen] -= by

    return change


def turn_negative(share: float) -> Callable[[nn.Module], None]:
    """Weights of a share of the units so negative that positive inputs cannot lift them."""

    def change(module: nn.Module) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        chosen = torch.randperm(len(weight))[: math.ceil(share * len(weight))]
        weight[chosen] -= 12 / math.sqrt(weight[0].numel()) * weight.std() * math.sqrt(weight[0].numel() / 8)

    return change


def dies(places: list[int]) -> Callable[[Reading, Reading], str]:
    """The symptom: dead where planted, alive and diverse without."""

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            finite=sick.finite,
            dead_where_planted=min(sick.dead[i] for i in places) >= 0.55,
            well_alive=max(well.dead) <= 0.3,
            inputs_diverse=max(well.cosine[i] for i in range(len(well.cosine))) <= 0.93,
            well_flat=flat(well),
        )

    return symptom


PLANTS: dict[str, Callable[[Draw], Plant]] = {"ACT001": saturated, "ACT002": contracting, "ACT003": dead}
