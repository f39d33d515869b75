"""PRC001 gradient underflow and PRC002 gradient overflow: what float16 cannot hold at any loss scale.

Notable: a fault that another loss scale would cure is not planted: verdicts must not depend on that scale.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.nets import hosts, plain
from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import replaced, unless
from benchmarks.nets.losses import Task, draw_task, error
from benchmarks.nets.measure import read
from benchmarks.nets.net import Net, Plant
from benchmarks.nets.reading import Reading


class Towers(nn.Module):
    """A shared trunk and two private towers with a head each: two tasks."""

    def __init__(
        self, inputs: int, width: int, depth: int, classes: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.trunk = tower(inputs, width, max(1, depth // 2), activation)
        self.first, self.second = (
            tower(width, width, depth, activation),
            tower(width, width, depth, activation),
        )
        self.head_first, self.head_second = nn.Linear(width, classes), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.head_first(self.first(x)), self.head_second(self.second(x))


def tower(inputs: int, width: int, depth: int, activation: type[nn.Module]) -> nn.Sequential:
    """Critically initialised layers."""
    parts: list[nn.Module] = []
    for index in range(depth):
        layer = nn.Linear(inputs if index == 0 else width, width)
        nn.init.normal_(
            layer.weight, std=(2.0 if activation is nn.ReLU else 1.2) ** 0.5 / layer.in_features**0.5
        )
        nn.init.zeros_(layer.bias)
        parts += [layer, activation()]
    return nn.Sequential(*parts)


class Both:
    """The sum of two losses with weights; computed in float32, as autocast would."""

    def __init__(self, task: Task, weight: float) -> None:
        self.task, self.weight = task, weight

    def __call__(self, output: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        first, second = (
            error(self.task.kind, o if o.dtype == torch.float64 else o.float(), t, "mean")
            for o, t in zip(output, y, strict=True)
        )
        return self.task.scale * (first + self.weight * second)


def underflow(draw: Draw) -> Plant:
    """PRC001: two tasks whose gradients differ by more decades than float16 has, at any loss scale."""
    task = replace(draw_task(draw), reduction="mean", scale=draw.pick(1.0, draw.log_uniform(0.01, 100)))
    width, batch, inputs = draw.log_integer(16, 128), draw.randint(8, 32), draw.randint(8, 32)
    model = Towers(inputs, width, draw.randint(1, 6), task.classes, draw.pick(nn.ReLU, nn.Tanh)).half()
    data = torch.randn(batch, inputs).half(), (task.targets(batch), task.targets(batch))
    weight = draw.log_uniform(1e-13, 1e-10)
    well = Net("mlp", model, data, Both(task, 1.0), facts={"width": width, "kind": task.kind})
    sick = well.but(loss=Both(task, weight), facts={"weight": weight})

    def symptom(sick_reading: Reading, well_reading: Reading) -> str:
        exact = read(sick)
        return unless(
            exact_nonzero=not exact.zero and exact.finite,
            flushed_at_any_scale=all(lost(sick, 2.0**k, "second") for k in range(-8, 41, 4)),
            well_fits=any(not lost(well, 2.0**k, "second") for k in range(-8, 17, 4)),
        )

    return Plant(sick, well, symptom, native=True)


def lost(net: Net, scale: float, part: str) -> bool:
    """Whether, in the net's own dtype at this loss scale, gradients overflow or most of a part's are 0."""
    model = copy.deepcopy(net.model)
    x, y = net.batch
    (net.loss(model(x), y) * scale).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    if not all(bool(torch.isfinite(g).all()) for g in grads.values()):
        return True
    own = torch.cat([g.flatten() for n, g in grads.items() if part in n])
    exact = exact_zeros(net, part)
    return float(((own == 0) & ~exact).double().mean()) > 0.3


def exact_zeros(net: Net, part: str) -> Tensor:
    """Which gradients of a part are 0 in float64 too."""
    model, (x, y) = copy.deepcopy(net.model).double(), net.batch
    net.loss(model(x.double()), y).backward()
    return (
        torch.cat([p.grad.flatten() for n, p in model.named_parameters() if part in n and p.grad is not None])
        == 0
    )


class Steep(nn.Module):
    """A function of size 1 behind a layer, whose derivative is formed from numbers beyond float16."""

    def __init__(self, inner: nn.Module, kind: str, c: float) -> None:
        super().__init__()
        self.inner, self.kind, self.c = inner, kind, c

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inner(x)
        small = self.c * (h.abs() + 0.3)
        if self.kind == "reciprocal":
            return torch.reciprocal(small) * self.c
        if self.kind == "division":
            quotient: Tensor = h / small * self.c
            return quotient
        root: Tensor = torch.rsqrt(small) * self.c**0.5
        return root


def half_host(draw: Draw) -> Net:
    """A small plain net: convolutions in float16 are slow on a CPU."""
    task = replace(draw_task(draw), scale=1.0, reduction="mean")
    family = draw.pick("mlp", "mlp", "mlp", "cnn")
    depth = draw.randint(2, 16) if family == "mlp" else draw.randint(2, 4)
    shape = plain.draw_shape(draw, family, depth, draw.choice(hosts.HEALTHY), task)
    return plain.build(shape if family == "mlp" else shape.but(widths=(16,) * depth, image=6, batch=8))


def overflowing(draw: Draw) -> Plant:
    """PRC002: a finite forward in float16 whose backward overflows at any loss scale."""
    host = half_host(draw)
    kind = draw.pick("reciprocal", "division", "rsqrt")
    c = {"reciprocal": 1e-3, "division": 3e-4, "rsqrt": 2e-4}[kind]
    name = draw.choice(host.cut)
    sick32 = replaced(host, name, lambda m: Steep(m, kind, c), operation=kind, planted=[name])
    sick, well = halved(sick32), halved(host)

    def symptom(sick_reading: Reading, well_reading: Reading) -> str:
        return unless(
            forward_finite=math.isfinite(sick_reading.loss),
            exact_finite=read(sick).finite,
            overflows_at_any_scale=all(breaks(sick, 2.0**k) for k in range(-12, 13, 4)),
            well_fits=not breaks(well, 1.0),
        )

    return Plant(sick, well, symptom, native=True)


def breaks(net: Net, scale: float) -> bool:
    """Whether a gradient is not finite, or none is left, in the net's own dtype at this loss scale."""
    model = copy.deepcopy(net.model)
    x, y = net.batch
    (net.loss(model(x), y) * scale).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return not all(bool(torch.isfinite(g).all()) for g in grads) or not any(bool(g.any()) for g in grads)


def halved(net: Net) -> Net:
    """The net and its batch in float16."""
    x, y = net.batch
    return net.but(model=copy.deepcopy(net.model).half(), batch=(x.half(), y), facts={"dtype": "float16"})


PLANTS: dict[str, Callable[[Draw], Plant]] = {"PRC001": underflow, "PRC002": overflowing}
