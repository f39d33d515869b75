"""INI001 too small, INI002 too large, INI003 symmetric, INP001 unnormalised input."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.nets import activations, plain
from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import changed, flat, times, twins, unless, untouched
from benchmarks.nets.health import SICK
from benchmarks.nets.net import Net, Plant
from benchmarks.nets.reading import Reading
from benchmarks.nets.recurrent import draw_time, recurrent
from benchmarks.nets.skips import unet

PLAIN = ("mlp", "mlp", "cnn", "autoencoder")


def depth_for(nats: float, a_layer: float, most: int) -> int:
    """Layers after which a loss or growth a layer adds up to this many nats."""
    return min(most, 2 + math.ceil(nats / abs(a_layer)))


def too_small(draw: Draw) -> Plant:
    """INI001: all weights too small, PyTorch's default in a deep net, or one pinched layer."""
    mode = draw.pick("all", "all", "default", "pinched")
    activation = draw.choice((*activations.RECTIFIERS, "tanh", *activations.SMOOTH))
    family = draw.choice(PLAIN)
    if mode == "pinched":
        return one_layer(draw, family, activation, draw.log_uniform(1e-5, 1e-3))
    weight = activations.critical(activation, activations.lengths(activation)[0])[0]
    factor = draw.uniform(0.2, min(0.7, 0.75 / weight)) if mode == "all" else 3**-0.5 / weight
    depth = depth_for(draw.uniform(SICK + 1.5, 45), math.log(factor), 40 if family == "cnn" else 90)
    shape = plain.draw_shape(draw, family, depth, activation)
    bad = (
        shape.but(init="default")
        if mode == "default"
        else shape.but(gain=factor, bias=draw.pick(0.0, factor))
    )
    sick, well = twins(draw, plain.build, bad, shape)

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(finite=sick.finite, vanishes=sick.ratio <= -SICK, well_flat=flat(well))

    return Plant(sick.but(facts={"mode": mode, "gain": factor}), well, symptom)


def one_layer(draw: Draw, family: str, activation: str, factor: float) -> Plant:
    """One layer's weights scaled by a large or tiny factor."""
    well = plain.build(plain.draw_shape(draw, family, draw.log_integer(4, 24), activation))
    name = draw.choice(well.layers[1:-1])
    sick = changed(well, [name], times(factor), mode="one layer", gain=factor, planted=[name])
    sign = 1 if factor > 1 else -1

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(finite=sick.finite, far_off=sign * sick.ratio >= SICK, well_flat=flat(well))

    return Plant(sick, well, symptom)


def too_large(draw: Draw) -> Plant:
    """INI002: all weights, or those of one layer, too large, with units that do not saturate."""
    family = draw.choice(PLAIN)
    if draw.chance(0.25):
        return one_layer(draw, family, draw.choice(activations.RECTIFIERS), draw.log_uniform(1e3, 1e5))
    activation = draw.pick("relu", "relu", "leaky", "gelu", "silu", "elu", "selu", "tanh")
    factor = draw.uniform(1.7, 2.2) if activation == "tanh" else draw.log_uniform(1.3, 3)
    depth = depth_for(draw.uniform(SICK + 1.5, 40), math.log(factor), 40 if family == "cnn" else 60)
    shape = plain.draw_shape(draw, family, depth, activation)
    shape = shape.but(q=0.1) if activation == "tanh" else shape
    sick, well = twins(draw, plain.build, shape.but(gain=factor, bias=0.0), shape)

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            finite=sick.finite,
            in_range=sick.output < 1e25,
            explodes=sick.ratio >= SICK,
            unsaturated=activation != "tanh" or max(sick.saturated) <= 0.3,
            well_flat=flat(well),
        )

    return Plant(sick.but(facts={"mode": "all", "gain": factor}), well, symptom)


def symmetric(draw: Draw) -> Plant:
    """INI003: units of a layer equal in what they read and in how they are read, so they stay equal."""
    if draw.chance(0.2):
        return symmetric_recurrent(draw)
    activation = draw.pick("relu", "tanh", "gelu", "elu")
    family = draw.pick("mlp", "mlp", "cnn")
    well = plain.build(plain.draw_shape(draw, family, draw.log_integer(2, 8), activation, q=1.0))
    mode = draw.pick("constant", "repeated", "groups")
    kinds = {"constant": 1, "repeated": 1, "groups": draw.randint(2, 4)}[mode]
    layers = [*well.layers, "head"]
    first = draw.randint(0, len(well.layers) - 1)
    last = len(well.layers) - 1 if draw.chance(0.5) else first
    names = layers[first : last + 1]
    sick = untouched(well, mode=mode, planted=names)
    with torch.no_grad():
        for name in names:
            repeat_rows(sick.model.get_submodule(name), kinds, constant=mode == "constant")
        for name in layers[first + 1 : last + 2]:
            repeat_columns(sick.model.get_submodule(name), kinds)
        if mode == "constant":
            for name in names[1:]:  # their inputs are equal, so they add up instead of averaging out
                weight = sick.model.get_parameter(f"{name}.weight")
                weight.mul_(weight.shape[1] ** -0.5)
    return Plant(sick, well, twin_rows([f"{name}.weight" for name in names]))


def repeat_rows(module: nn.Module, kinds: int, constant: bool) -> None:
    """Make a layer's rows copies of its first few, or all one constant of the same size."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    if constant:
        weight.fill_(float(weight.std()))
    index = torch.arange(len(weight)) % kinds
    weight.copy_(weight[index].clone())
    if isinstance(bias, Tensor):
        bias.copy_(bias[index].clone())


def repeat_columns(module: nn.Module, kinds: int) -> None:
    """Make a layer read equal units equally: the mean over each group, rescaled to keep the output's size."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    group = torch.arange(weight.shape[1]) % kinds
    for kind in range(kinds):
        chosen = weight[:, group == kind]
        weight[:, group == kind] = chosen.mean(1, keepdim=True).expand_as(chosen)


def symmetric_recurrent(draw: Draw) -> Plant:
    """INI003 in a fused recurrent net: every matrix constant, as after `nn.init.constant_`."""
    cell = draw.pick("rnn", "gru", "lstm")
    shape = draw_time(draw, cell, draw.randint(4, 10), form="fused", readout="each")
    well = recurrent(shape)
    sick = untouched(well, mode="constant", planted=["core"])
    with torch.no_grad():
        for name, parameter in sick.model.named_parameters():
            if name.startswith("core.") or name == "head.weight":
                parameter.fill_(draw.uniform(0.2, 0.8) / shape.hidden if parameter.ndim > 1 else 0.0)
    return Plant(sick, well, twin_rows(["core.weight_ih_l0"]))


def twin_rows(names: list[str]) -> Callable[[Reading, Reading], str]:
    """The symptom: rows and their gradients mostly equal, and all distinct without the plant."""

    def symptom(sick: Reading, well: Reading) -> str:
        known = [sick.distinct.get(name, 1.0) for name in names]
        return unless(
            finite=sick.finite,
            rows_equal=max(known) <= 0.26,
            well_distinct=min(well.distinct.get(name, 0.0) for name in names) >= 0.85,
            well_flat=flat(well),
        )

    return symptom


def bad_input(draw: Draw) -> Plant:
    """INP001: inputs of a scale or an offset of 1e2 to 1e4, as raw pixels or metres come."""
    well = input_host(draw)
    x, y = well.batch
    mode = draw.pick("scale", "offset", "pixels")
    by = draw.log_uniform(1e2, 1e4)
    raw = {"scale": x * by, "offset": x + by, "pixels": (x * 64 + 128).clamp(0, 255)}[mode]
    sick = well.but(batch=(raw, y), facts={"mode": mode, "by": by})

    def symptom(sick: Reading, well: Reading) -> str:
        blown = sick.output >= 20 * well.output
        flat_first = bool(sick.saturated) and sick.saturated[0] >= 0.6 and well.saturated[0] <= 0.3
        drowned = bool(sick.spread) and sick.spread[0] <= 0.03
        starved = bool(sick.time) and sum(sick.time) / len(sick.time) <= sum(well.time) / len(well.time) - 3
        return unless(
            finite=sick.finite, harmed=blown or flat_first or drowned or starved, well_flat=flat(well)
        )

    return Plant(sick, well, symptom)


def input_host(draw: Draw) -> Net:
    """A net that reads raw numbers, without a normalisation in front."""
    family = draw.pick("mlp", "mlp", "cnn", "unet", "rnn")
    if family == "rnn":
        return recurrent(draw_time(draw, "rnn", draw.randint(4, 10), readout="last", vocabulary=0))
    if family == "unet":
        return unet_without_norm(draw)
    activation = draw.choice((*activations.RECTIFIERS, "tanh", "hardtanh", "gelu", "elu"))
    return plain.build(plain.draw_shape(draw, family, draw.log_integer(2, 16), activation))


def unet_without_norm(draw: Draw) -> Net:
    """A U-Net whose layers are not normalised."""
    net = unet(draw)
    while net.facts["norm"]:
        net = unet(draw)
    return net


PLANTS: dict[str, Callable[[Draw], Plant]] = {
    "INI001": too_small,
    "INI002": too_large,
    "INI003": symmetric,
    "INP001": bad_input,
}
