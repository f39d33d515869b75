"""The generator's own measurement: plain autograd on a float64 copy, no code of the tool under test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.nets.attention import attention_reading, starvation
from benchmarks.nets.net import Net
from benchmarks.nets.reading import Reading

SATURATED = 0.05


def read(net: Net, native: bool = False) -> Reading:
    """Measure a copy of the net, without dropout, in float64, or in its own dtype where `native`."""
    model = still(copy.deepcopy(net.model))
    batch = net.batch
    if not native:
        model, batch = model.double(), cast(batch)
    notes = Notes(model, net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = notes.run(batch)
    return notes.reading(loss)


def still(model: nn.Module) -> nn.Module:
    """The model with every dropout probability set to 0."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
    return model


def cast(batch: Any) -> Any:
    """Floating tensors of a batch in float64."""
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, (tuple, list)):
        return type(batch)(cast(b) for b in batch)
    return {k: cast(v) for k, v in batch.items()} if isinstance(batch, dict) else batch


def log_norm(tensor: Tensor) -> float:
    """Natural logarithm of the float64 norm, without underflow; -inf for zero."""
    tensor = tensor.detach().double()
    top = float(tensor.abs().max()) if tensor.numel() else 0.0
    if top == 0.0 or not math.isfinite(top):
        return math.log(top) if top else -math.inf
    return math.log(top) + math.log(float((tensor / top).norm()))


def slopes(activation: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The activation's derivative at every element of z."""
    with torch.enable_grad():
        point = z.detach().clone().requires_grad_()
        return torch.autograd.grad(activation(point).sum(), point)[0].abs()


def by_unit(tensor: Tensor) -> Tensor:
    """Shape (rows, units): the channels of an image are its units, else the last dimension."""
    return tensor.movedim(1, -1).flatten(0, -2) if tensor.ndim == 4 else tensor.flatten(0, -2)


class Notes:
    """Hooks on one copy of a net, and what they saw, keyed by the order of the calls."""

    def __init__(self, model: nn.Module, net: Net) -> None:
        self.model, self.net = model, net
        self.gradient: dict[int, float] = {}
        self.rms: list[float] = []
        self.spread: list[float] = []
        self.cosine: list[float] = []
        self.saturated: list[float] = []
        self.dead: list[float] = []
        self.slope: list[float] = []
        self.time: list[float] = []
        self.attended: list[tuple[nn.Module, Tensor]] = []
        self.executed: set[str] = set()
        self.output, self.output_gradient = 0.0, -math.inf
        if net.activation is not None:
            grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
            self.steepest = float(slopes(net.activation, grid).max())
        self.attach()

    def attach(self) -> None:
        modules = dict(self.model.named_modules())
        for name, module in modules.items():
            module.register_forward_hook(lambda m, a, o, name=name: self.executed.add(name))
        for name in self.net.stream:
            modules[name].register_forward_hook(self.see_state)
        for name in self.net.layers:
            modules[name].register_forward_hook(self.see_units)
        for name in filter(modules.__contains__, self.net.attentions):  # a plant may have wrapped one away
            modules[name].register_forward_pre_hook(lambda m, a: self.attended.append((m, a[0].detach())))
        if self.net.sequence:
            modules[self.net.sequence].register_forward_pre_hook(self.see_sequence)

    def see_state(self, module: nn.Module, arguments: Any, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        flat = state.detach().flatten(1)
        size = float(flat.norm()) or math.inf
        index = len(self.gradient)
        self.rms.append(float(flat.double().square().mean().sqrt()))
        self.spread.append(float((flat - flat.mean(0)).norm()) / size)
        self.cosine.append(mean_cosine(flat))
        if state.requires_grad:  # states before a frozen part have none to measure
            self.gradient[index] = -math.inf
            state.register_hook(lambda g: self.gradient.__setitem__(index, log_norm(g)))

    def see_units(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        assert self.net.activation is not None
        slope = by_unit(slopes(self.net.activation, output))
        self.saturated.append(float((slope < SATURATED * self.steepest).double().mean()))
        self.dead.append(float((slope == 0).all(0).double().mean()))
        self.slope.append(float(slope.square().mean()))

    def see_sequence(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        sequence = arguments[0]
        if not sequence.requires_grad:
            sequence = sequence.detach().clone().requires_grad_()
        hook: Any = sequence.register_hook
        hook(lambda g: self.time.extend(log_norm(g[:, t]) for t in range(g.shape[1])))
        return (sequence, *arguments[1:])

    def run(self, batch: Any) -> float:
        x, y = batch if isinstance(batch, tuple) else (batch, None)
        with torch.enable_grad():
            output = self.model(x)
            if isinstance(output, Tensor):
                self.output = float(output.detach().abs().max())
                if output.requires_grad:
                    hook: Any = output.register_hook
                    hook(lambda g: setattr(self, "output_gradient", log_norm(g)))
            loss = self.net.loss(output, y) if y is not None else self.net.loss(output)
            if loss.requires_grad:
                loss.backward()
        return float(loss.detach())

    def reading(self, loss: float) -> Reading:
        trainable = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        grads = {n: dense(p.grad) for n, p in trainable.items() if p.grad is not None}
        broken = frozenset(n for n, g in grads.items() if not torch.isfinite(g).all())
        zero = frozenset(n for n, g in grads.items() if not g.any())
        seen = [attention_reading(module, x) for module, x in self.attended]
        return Reading(
            loss=loss,
            gradient=tuple(self.gradient.values()),
            rms=tuple(self.rms),
            spread=tuple(self.spread),
            saturated=tuple(self.saturated),
            dead=tuple(self.dead),
            slope=tuple(self.slope),
            time=tuple(self.time),
            entropy=tuple(s[0] for s in seen),
            logit=tuple(s[1] for s in seen),
            tokens=tuple(s[2] for s in seen),
            starvation=tuple(starvation(module) for module, _ in self.attended),
            output=self.output,
            output_gradient=self.output_gradient,
            missing=frozenset(trainable) - frozenset(grads),
            zero=zero,
            broken=broken,
            norms={n: log_norm(g) for n, g in grads.items() if n not in broken | zero},
            distinct={
                n: distinct(trainable[n], g)
                for n, g in grads.items()
                if g.ndim > 1 and n not in broken | zero
            },
            cosine=tuple(self.cosine),
            executed=frozenset(self.executed),
        )


def dense(gradient: Tensor) -> Tensor:
    """A gradient as a dense tensor."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def mean_cosine(rows: Tensor) -> float:
    """Mean cosine between different rows of (B, F)."""
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True).clamp_min(1e-300)
    count = len(rows)
    return float(unit.sum(0).square().sum() - count) / max(count * (count - 1), 1)


def distinct(weight: Tensor, gradient: Tensor) -> float:
    """Share of rows that no other row equals, counting weight and gradient together, to six digits."""
    scales = (weight.detach().abs().max().clamp_min(1e-300), gradient.abs().max())
    both = torch.cat([weight.detach().flatten(1) / scales[0], gradient.flatten(1) / scales[1]], 1)
    return len(torch.unique((both * 1e6).round(), dim=0)) / len(both)
