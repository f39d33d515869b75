"""DEP001 collapse, DEP002 residual growth, NRM001 BatchNorm without skips, NRM002 deep post-norm."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.nets import plain
from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import changed, flat, normal_biases, some, twins, unless
from benchmarks.nets.health import SICK
from benchmarks.nets.net import Net, Plant
from benchmarks.nets.reading import Reading
from benchmarks.nets.skips import draw_resnet, resnet
from benchmarks.nets.transformers import draw_transformer, transformer


def collapse(draw: Draw) -> Plant:
    """DEP001: huge biases drown the samples, or weights of one sign align them, while the gradient stays."""
    family = draw.pick("mlp", "mlp", "cnn")
    mode = draw.pick("biases", "biases", "signs")
    activation = draw.pick("relu", "leaky", "gelu", "elu") if mode == "biases" else draw.pick("relu", "leaky")
    shape = plain.draw_shape(draw, family, draw.log_integer(3, 30), activation, q=1.0)
    well = plain.build(shape.but(bias=0.0))
    if mode == "biases":
        by = draw.log_uniform(3e3, 1e5)
        names = some(draw, well.layers)
        sick = changed(well, names, normal_biases(by))
    else:
        by, names = 1.0, list(well.layers[1:])
        sick = changed(well, names, one_sign)
    calm_head(sick)
    return Plant(sick.but(facts={"mode": mode, "by": by, "planted": names}), well, collapses)


def one_sign(module: nn.Module) -> None:
    """All weights positive with row sums about 1."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    nn.init.uniform_(weight, 0, 2 / weight[0].numel())


@torch.no_grad()
def calm_head(net: Net) -> None:
    """Shrink the head so that the outputs stay of size 1."""
    size = float(net.model(net.batch[0]).abs().max())
    head = net.model.get_submodule(net.head)
    if math.isfinite(size) and size > 2:
        assert isinstance(head.weight, Tensor)
        head.weight.mul_(2 / size)


def collapses(sick: Reading, well: Reading) -> str:
    """The symptom: cosine 1 at the end, gradient kept, and neither without the plant."""
    return unless(
        finite=sick.finite,
        collapsed=sick.cosine[-1] >= 0.9999,
        gradient_kept=flat(sick),
        well_diverse=well.cosine[-1] <= 0.93,
        well_flat=flat(well),
    )


def growth(draw: Draw) -> Plant:
    """DEP002: branches of full strength added to an unnormalised stream, block after block."""
    branch = draw.uniform(0.8, 1.8)
    a_block = 0.5 * math.log(1 + branch**2)
    blocks = min(60, math.ceil(draw.uniform(SICK + 4, 36) / a_block) + 1)
    shape = draw_resnet(draw, blocks, norm="", branch=branch, activation=draw.pick("relu", "gelu", "silu"))
    calm = shape.but(branch=branch * min(0.5, blocks**-0.5))
    sick, well = twins(draw, resnet, shape, calm)

    def symptom(sick: Reading, well: Reading) -> str:
        grown = math.log(sick.rms[-1] / sick.rms[0])
        return unless(
            finite=sick.finite,
            explodes=sick.ratio >= SICK,
            stream_grows=grown >= SICK - 2,
            well_flat=flat(well),
        )

    return Plant(sick.but(facts={"branch": branch}), well, symptom)


def batch_norm(draw: Draw) -> Plant:
    """NRM001: BatchNorm in a deep stack without skips."""
    if draw.chance(0.4):
        shape = draw_resnet(
            draw, draw.randint(20, 30), norm="batch", skip=False, activation=draw.pick("relu", "leaky")
        )
        nets = twins(draw, resnet, shape, shape.but(skip=True))
        sick, well = (net.but(family="cnn" if shape.image else "mlp") for net in nets)
    else:
        family = draw.pick("mlp", "cnn")
        depth = draw.randint(38, 48 if family == "cnn" else 64)
        bare = plain.draw_shape(draw, family, depth, draw.pick("relu", "relu", "leaky"), q=1.0)
        bare = bare.but(batch=max(bare.batch, 16), bias_before_norm=draw.chance(0.5))
        sick, well = twins(draw, plain.build, bare.but(norm="batch"), bare)

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(finite=sick.finite, explodes=sick.ratio >= SICK, well_flat=flat(well))

    return Plant(sick, well.but(tolerate=frozenset({"rms", "output"})), symptom)


def post_norm(draw: Draw) -> Plant:
    """NRM002: a deep post-norm transformer, whose last queries starve; in pre-norm order they do not."""
    shape = draw_transformer(
        draw, draw.randint(16, 30), order="post", form=draw.pick("softmax", "sdpa", "torch")
    )
    shape = shape.but(tokens=draw.randint(6, 12), xavier=True)
    sick, well = twins(draw, transformer, shape, shape.but(order="pre"))

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            finite=sick.finite,
            starves=min(sick.starvation) <= 1e-3 or abs(sick.ratio) >= SICK,
            well_fed=min(well.starvation) >= 1e-2,
            well_flat=flat(well),
        )

    return Plant(sick, well, symptom)


PLANTS: dict[str, Callable[[Draw], Plant]] = {
    "DEP001": collapse,
    "DEP002": growth,
    "NRM001": batch_norm,
    "NRM002": post_norm,
}
