"""Healthy nets, plain ones and those that look sick to a careless eye; each is measured before it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from benchmarks.nets import designs, hosts, plain, skips, training
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import draw_task
from benchmarks.nets.measure import read
from benchmarks.nets.net import Net, Redraw
from benchmarks.nets.recurrent import draw_time, recurrent
from benchmarks.nets.transformers import draw_transformer, transformer

Recipe = Callable[[Draw], Net]


def critical(draw: Draw) -> Net:
    """A plain net at its critical point, up to 100 layers deep."""
    family = draw.pick("mlp", "mlp", "cnn", "autoencoder")
    depth = draw.log_integer(2, 30 if family == "cnn" else 100)
    return plain.build(plain.draw_shape(draw, family, depth, draw.choice(hosts.HEALTHY)))


def default_shallow(draw: Draw) -> Net:
    """PyTorch's default initialisation, as shallow as most people's first net."""
    family = draw.pick("mlp", "cnn", "autoencoder")
    shape = plain.draw_shape(draw, family, draw.randint(1, 4), draw.choice((*hosts.HEALTHY, "sigmoid")))
    return plain.build(shape.but(init="default"))


def normalised(draw: Draw) -> Net:
    """A plain net with LayerNorm, or a shallow one with BatchNorm; biases before the norm or none."""
    norm = draw.pick("layer", "batch")
    depth = draw.randint(2, 8 if norm == "batch" else 24)
    shape = plain.draw_shape(draw, draw.pick("mlp", "cnn"), depth, draw.choice(hosts.HEALTHY), q=1.0)
    init = draw.pick("default", "normal")
    return plain.build(shape.but(norm=norm, bias_before_norm=draw.chance(0.7), init=init))


def residual(draw: Draw) -> Net:
    """A residual net with norms, or without them and with branches scaled by 1/sqrt(blocks)."""
    blocks = draw.randint(1, 20)
    shape = skips.draw_resnet(draw, blocks)
    return skips.resnet(shape.but(norm="", branch=0.7 * blocks**-0.5) if draw.chance(0.25) else shape)


def each_step(draw: Draw) -> Net:
    """A recurrent net with a loss at every step, or with the mean of all states read out."""
    shape = draw_time(
        draw, draw.pick("rnn", "gru", "lstm"), draw.randint(4, 40), readout=draw.pick("each", "mean")
    )
    two = shape.form == "fused" and draw.chance(0.4)
    return recurrent(
        shape.but(layers=draw.randint(1, 3), bidirectional=two) if shape.form == "fused" else shape
    )


def long_memory(draw: Draw) -> Net:
    """Read out at the last step, with chrono biases, a large forget bias, or an orthogonal recurrence."""
    cell = draw.pick("rnn", "gru", "lstm")
    shape = draw_time(draw, cell, draw.randint(8, 60), readout="last")
    if cell == "rnn":
        return quiet_inputs(recurrent(shape.but(init="orthogonal")))
    return recurrent(shape.but(init=draw.pick("chrono", "chrono", "forget"), gain=draw.uniform(2, 5)))


@torch.no_grad()
def quiet_inputs(net: Net) -> Net:
    """Input weights and biases at a tenth, so that tanh stays near its linear part."""
    for name, parameter in net.model.named_parameters():
        if "_ih" in name or "x2h" in name or "bias_hh" in name:
            parameter.mul_(0.1)
    return net


def few_steps(draw: Draw) -> Net:
    """PyTorch's default recurrent net over a few steps."""
    cell = draw.pick("rnn", "gru", "lstm")
    return recurrent(draw_time(draw, cell, draw.randint(3, 6), readout="last"))


def pre_norm(draw: Draw) -> Net:
    """A pre-norm transformer, sometimes causal or with one layer shared by all depths."""
    shape = draw_transformer(draw, draw.randint(1, 16), order="pre")
    if shape.form != "torch":
        shape = shape.but(causal=draw.chance(0.4))
    return transformer(shape.but(shared=draw.chance(0.15), dropout=draw.pick(0.0, 0.1)))


def post_norm(draw: Draw) -> Net:
    """A post-norm transformer shallow enough to train."""
    return transformer(draw_transformer(draw, draw.randint(1, 5), order="post"))


def zero_branches(draw: Draw) -> Net:
    """Branches that start at 0: SkipInit, a zero last layer (Fixup), or a zero last gamma."""
    mode = draw.pick("SkipInit", "zero last", "zero gamma")
    norm = draw.pick("batch", "layer") if mode == "zero gamma" else ""
    shape = skips.draw_resnet(draw, draw.randint(2, 16), norm=norm, learned_scale=mode == "SkipInit")
    net = skips.resnet(shape.but(zero_last=mode == "zero last", order="v1" if norm else shape.order))
    for name in net.stream if mode == "zero gamma" else ():
        nn.init.zeros_(net.model.get_parameter(f"{name}.branch.4.weight"))
    return net.but(tolerate=frozenset({"zero"}), facts={"design": mode})


def narrow(draw: Draw) -> Net:
    """So few units that chance alone moves the gradient."""
    shape = plain.draw_shape(draw, "mlp", draw.randint(3, 12), draw.choice(hosts.HEALTHY))
    return plain.build(shape.but(widths=(draw.randint(4, 8),) * shape.depth))


def dropout(draw: Draw) -> Net:
    """A plain net with dropout, in training mode."""
    shape = plain.draw_shape(draw, "mlp", draw.randint(2, 8), draw.choice(hosts.HEALTHY))
    return plain.build(shape.but(dropout=draw.uniform(0.05, 0.3), style="sequential"))


def small_batch(draw: Draw) -> Net:
    """Two to four samples."""
    shape = plain.draw_shape(
        draw, draw.pick("mlp", "cnn"), draw.log_integer(2, 20), draw.choice(hosts.HEALTHY)
    )
    return plain.build(shape.but(batch=draw.randint(2, 4)))


def log_softmax_twice(draw: Draw) -> Net:
    """`log_softmax` before a cross-entropy: applied twice it is the same function."""
    return hosts.host(draw, replace(draw_task(draw, "cross-entropy"), before="log_softmax"))


def frozen(draw: Draw) -> Net:
    """A backbone frozen on purpose, with an optimizer for the rest."""
    net = hosts.host(draw)
    names = list(net.model.named_parameters())
    count = draw.randint(1, max(1, int(0.9 * len(names))))
    for name, parameter in names[:count]:
        parameter.requires_grad_(name.startswith("head"))
    rest = [p for p in net.model.parameters() if p.requires_grad]
    return net.but(optimizer=hosts.optimizer(draw, rest), facts={"frozen": count})


def half(draw: Draw) -> Net:
    """A small net in bfloat16 or float16 whose gradients fit."""
    task = replace(draw_task(draw), scale=1.0, reduction="mean")
    net = plain.build(
        plain.draw_shape(draw, "mlp", draw.randint(2, 8), draw.pick("relu", "tanh", "elu"), task)
    )
    dtype = draw.pick(torch.bfloat16, torch.float16)
    x, y = net.batch
    net = net.but(model=net.model.to(dtype), batch=(x.to(dtype), y), facts={"dtype": str(dtype)})
    seen = read(net, native=True)
    if seen.zero or not seen.finite:
        raise Redraw("half: does not fit")
    return net


def unet(draw: Draw) -> Net:
    """A U-Net."""
    return skips.unet(draw)


def logistic(draw: Draw) -> Net:
    """One linear layer: a logistic or a linear regression."""
    task, inputs, batch = draw_task(draw), draw.randint(2, 64), draw.randint(8, 64)
    data = torch.randn(batch, inputs), task.targets(batch)
    return Net("mlp", nn.Linear(inputs, task.classes), data, task, facts={"depth": 0, "width": inputs})


RECIPES: tuple[tuple[int, str, Recipe], ...] = (
    (9, "critical", critical),
    (4, "default shallow", default_shallow),
    (4, "normalised", normalised),
    (6, "residual", residual),
    (4, "unet", unet),
    (4, "each step", each_step),
    (4, "long memory", long_memory),
    (2, "few steps", few_steps),
    (6, "pre-norm", pre_norm),
    (3, "post-norm shallow", post_norm),
    (3, "zero branches", zero_branches),
    (2, "narrow", narrow),
    (2, "dropout", dropout),
    (2, "small batch", small_batch),
    (1, "log_softmax twice", log_softmax_twice),
    (3, "frozen", frozen),
    (1, "half precision", half),
    (1, "logistic", logistic),
    (4, "converged", training.converged),
    (2, "LoRA", designs.lora),
    (2, "tied embedding", designs.tied),
    (2, "sparse embedding", designs.sparse),
    (2, "stop-gradient", designs.stop_gradient),
    (2, "empty level", designs.empty_level),
    (1, "weight norm", designs.weight_norm),
    (2, "shared layer", designs.shared_layer),
    (1, "gated", designs.gated),
)
ORDER: tuple[str, ...] = tuple(name for weight, name, _ in RECIPES for _ in range(weight))
BY_NAME: dict[str, Recipe] = {name: recipe for _, name, recipe in RECIPES}
