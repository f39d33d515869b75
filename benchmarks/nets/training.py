"""Converged nets: a few hundred steps of Adam on tiny data, until the residual is next to nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.nets import plain, skips
from benchmarks.nets.draw import Draw
from benchmarks.nets.losses import Task
from benchmarks.nets.net import Net, Redraw
from benchmarks.nets.transformers import draw_transformer, transformer


def converged(draw: Draw) -> Net:
    """A net that has fitted separable data: its gradients are tiny because nothing is left to learn."""
    task = Task("cross-entropy", draw.randint(2, 4), "mean", draw.pick(1.0, draw.log_uniform(1e-6, 1e4)))
    net = student(draw, task)
    x, y = net.batch
    centres = 2 * torch.randn(task.classes, *x.shape[1:])
    x = centres[y] + 0.4 * torch.randn_like(x)
    net = net.but(batch=(x, y))
    steps, loss = fit(net, draw.log_uniform(1e-3, 4e-3), 300)
    if loss > 0.02:
        raise Redraw("not converged")
    return net.but(facts={"steps": steps, "fitted_loss": loss}, tolerate=frozenset({"output", "rms", "zero"}))


def student(draw: Draw, task: Task) -> Net:
    """A small net of a few families."""
    kind = draw.pick("mlp", "resnet", "transformer")
    if kind == "mlp":
        shape = plain.draw_shape(draw, "mlp", draw.randint(2, 12), draw.pick("relu", "tanh", "gelu"), task)
        return plain.build(shape.but(batch=24, widths=(draw.randint(24, 64),) * shape.depth))
    if kind == "resnet":
        return skips.resnet(skips.draw_resnet(draw, draw.randint(2, 5), task, image=0, inputs=16, batch=24))
    tokens = draw_transformer(draw, draw.randint(1, 2), order="pre", readout="mean", vocabulary=0)
    return transformer(tokens.but(task=task, tokens=6, batch=16))


def fit(net: Net, rate: float, steps: int) -> tuple[int, float]:
    """Adam until the unscaled loss is tiny; returns the steps taken and that loss."""
    x, y = net.batch
    optimizer = torch.optim.Adam(net.model.parameters(), rate)
    value = 1.0
    for step in range(steps):
        optimizer.zero_grad()
        loss: Tensor = net.loss(net.model(x), y) / net.loss.scale
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = float(loss.detach())
        if value < 2e-4 and step > 100:
            break
    optimizer.zero_grad()
    return step + 1, value
