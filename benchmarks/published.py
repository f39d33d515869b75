"""The published rules of other systems, reimplemented from the formulas of their papers and manuals.

Notable:
- Four systems: SageMaker Debugger, AutoTrainer (ICSE 2021), DeepDiagnosis (ICSE 2022), TheDeepChecker. Only
  rules that can speak within a few steps are here; those that wait for a plateau of loss or accuracy cannot.
- They see what their hooks would see: parameters, gradients, and the activations that are modules. One
  recording of five steps serves all four. It steps with Adam, which does not care for the scale of the loss:
  under SGD their rules on the size of updates would misfire at most scales.
- Scoring is generous: any claim on a sick net counts as *detected*; *named* are the codes a claim stands for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 5
NAMED: dict[str, frozenset[str]] = {
    "vanishing": frozenset(),
    "exploding": frozenset(),
    "non-finite": frozenset({"NUM001", "PRC002"}),
    "dead units": frozenset({"ACT003"}),
    "saturation": frozenset({"ACT001", "OUT001"}),
    "poor initialisation": frozenset({"INI001", "INI002", "INI003"}),
    "update too small": frozenset(),
    "update too large": frozenset(),
}
SQUASHING = (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid)
RECTIFYING = (nn.ReLU, nn.ReLU6)


@dataclass
class Step:
    """One training step as a hook sees it: |gradient| and update/weight by parameter, and activations."""

    gradients: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)
    squashed: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)  # module, input, output
    rectified: list[Tensor] = field(default_factory=list)  # output, units last
    accuracy: float = math.nan


@dataclass
class Recording:
    """A few steps of training a copy of the model."""

    dense: frozenset[str]
    steps: list[Step] = field(default_factory=list)

    def over(self, what: Callable[[Step], Iterable[bool]]) -> bool:
        """True where something holds for anything at any step."""
        return any(any(what(step)) for step in self.steps)


def record(model: nn.Module, batch: Any, loss: Any, optimizer: Any = None) -> Recording:
    """Train a copy for five steps and note what published rules read."""
    twin = copy.deepcopy(model)
    places = {id(p): n for n, p in model.named_parameters()}
    held = dict(twin.named_parameters())
    dense = {f"{n}.weight" for n, m in twin.named_modules() if isinstance(m, nn.Linear)}
    recording = Recording(frozenset(dense))
    stepper = adam(optimizer, places, held)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(STEPS):
            recording.steps.append(one_step(twin, batch, loss, stepper))
    return recording


def adam(optimizer: Any, places: dict[int, str], held: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Adam at 0.001 over the copies of what the given optimizer holds, or over everything trainable."""
    if optimizer is None:
        own = [p for p in held.values() if p.requires_grad]
    else:
        own = [held[places[id(p)]] for g in optimizer.param_groups for p in g["params"] if id(p) in places]
    half = any(p.dtype == torch.float16 for p in own)  # where Adam's epsilon is 0
    return torch.optim.SGD(own, lr=1e-3) if half else torch.optim.Adam(own, lr=1e-3)


def one_step(model: nn.Module, batch: Any, loss: Any, optimizer: torch.optim.Optimizer) -> Step:
    """One forward, backward and update, noted down."""
    step, hooks = Step(), []
    for module in model.modules():
        if isinstance(module, (*SQUASHING, *RECTIFYING)):
            hooks.append(module.register_forward_pre_hook(before(step)))
            hooks.append(module.register_forward_hook(after(step)))
    try:
        value, output, y = objective(model, batch, loss)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    step.accuracy = accuracy(output, y)
    note_parameters(step, model, optimizer)
    return step


def objective(model: nn.Module, batch: Any, loss: Any) -> tuple[Tensor, Any, Any]:
    """(loss, output, targets), whichever way the sample hands over its loss."""
    if isinstance(batch, dict):
        output = model(**batch)
        return output.loss, output.logits, batch["y"]
    x, y = batch
    output = model(x)
    return loss(output, y), output, y


def before(step: Step) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """Notes a squashing activation's input."""

    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, SQUASHING):
            step.squashed.append((module, arguments[0].detach().float().clone(), torch.empty(0)))

    return hook


def after(step: Step) -> Callable[[nn.Module, Any, Any], None]:
    """Notes an activation's output."""

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
        value = output.detach().float().clone()
        if isinstance(module, SQUASHING):
            step.squashed[-1] = (*step.squashed[-1][:2], value)
        else:
            step.rectified.append(value.movedim(1, -1) if value.ndim == 4 else value)

    return hook


def note_parameters(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gradients and weights before the update, and how large the update is in proportion."""
    named = [(n, p) for n, p in model.named_parameters() if p.grad is not None]
    for name, parameter in named:
        assert parameter.grad is not None
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        step.gradients[name] = gradient.detach().abs().float()
        step.weights[name] = parameter.detach().float().clone()
        parameter.grad = gradient  # Adam takes no sparse ones
    optimizer.step()
    for name, parameter in named:
        moved = float((parameter.detach().float() - step.weights[name]).abs().mean())
        step.updates[name] = moved / max(float(step.weights[name].abs().mean()), 1e-30)


def accuracy(output: Any, y: Any) -> float:
    """Accuracy where the targets are classes, else nan."""
    if not isinstance(output, Tensor) or not isinstance(y, Tensor) or y.is_floating_point():
        return math.nan
    return float((output.argmax(-1) == y).float().mean()) if output.shape[:-1] == y.shape else math.nan


def broken(step: Step) -> bool:
    """True where a gradient is not finite."""
    return any(not bool(torch.isfinite(g).all()) for g in step.gradients.values())


def mean(tensor: Tensor) -> float:
    """The mean as a float."""
    return float(tensor.mean())


def sagemaker(recording: Recording) -> set[str]:
    """SageMaker Debugger's built-in rules at their documented thresholds."""
    claims = set()
    if recording.over(lambda s: (mean(g) < 1e-7 for g in s.gradients.values())):
        claims.add("vanishing")
    if recording.over(lambda s: [broken(s)]):
        claims.add("non-finite")
    if recording.over(lambda s: (mean(silent(r)) > 0.5 for r in s.rectified)):
        claims.add("dead units")
    if recording.over(lambda s: (mean(beyond(m, z)) > 0.5 for m, z, _ in s.squashed)):
        claims.add("saturation")
    spreads = [float(w.var()) for w in recording.steps[0].weights.values() if w.ndim > 1]
    if len(spreads) > 1 and max(spreads) > 10 * min(spreads):
        claims.add("poor initialisation")
    return claims | updates(recording, 1e-8, 10)


def silent(rectified: Tensor) -> Tensor:
    """1 for units that fire less than 1 % of the time."""
    return ((rectified.flatten(0, -2) > 0).float().mean(0) < 0.01).float()


def beyond(module: nn.Module, z: Tensor) -> Tensor:
    """Where a tanh's input is beyond 9.5, or a sigmoid's outside (-23, 17)."""
    return ((z < -23) | (z > 17)).float() if isinstance(module, nn.Sigmoid) else (z.abs() > 9.5).float()


def updates(recording: Recording, low: float, high: float) -> set[str]:
    """Update/weight outside a range."""
    weights = [[u for n, u in s.updates.items() if s.weights[n].ndim > 1] for s in recording.steps]
    small, large = any(u < low for s in weights for u in s), any(u > high for s in weights for u in s)
    return ({"update too small"} if small else set()) | ({"update too large"} if large else set())


def autotrainer(recording: Recording) -> set[str]:
    """AutoTrainer: first over last layer, dying ReLU by zero gradients; silent where accuracy is good."""
    claims = set()
    for step in recording.steps:
        if step.accuracy > 0.6:
            continue
        norms = [float(g.norm()) for n, g in step.gradients.items() if g.ndim > 1]
        if broken(step):
            claims |= {"exploding", "non-finite"}
        if len(norms) > 1:
            ratio = norms[0] / max(norms[-1], 1e-38)
            claims |= {"vanishing"} if ratio < 1e-3 and norms[0] < 1e-4 else set()
            claims |= {"exploding"} if ratio > 70 else set()
        zeros = sum(int((g == 0).sum()) for g in step.gradients.values())
        if zeros >= 0.7 * max(1, sum(g.numel() for g in step.gradients.values())):
            claims.add("dead units")
    return claims


def deep_diagnosis(recording: Recording) -> set[str]:
    """DeepDiagnosis: mean |gradient| of dense layers, saturated and dead activations, update range."""
    claims = set()
    if recording.over(lambda s: (mean(g) < 1e-7 for n, g in s.gradients.items() if n in recording.dense)):
        claims.add("vanishing")
    if recording.over(lambda s: [broken(s)]):
        claims.add("non-finite")
    if recording.over(lambda s: (mean((z.abs() >= 5).float()) > 0.5 for _, z, _ in s.squashed)):
        claims.add("saturation")
    if recording.over(lambda s: (mean((r <= 0).float()) >= 0.7 for r in s.rectified)):
        claims.add("dead units")
    return claims | updates(recording, 1e-5, 1e-1)


def deep_checker(recording: Recording) -> set[str]:
    """TheDeepChecker: level and trend of |gradient| over five steps, saturation rho, dead units, updates."""
    claims = set()
    first, last = recording.steps[0].gradients, recording.steps[-1].gradients
    for name in first.keys() & last.keys():
        start, end = mean(first[name]), mean(last[name])
        claims |= {"vanishing"} if end < 1e-6 and end <= 0.5 * start else set()
        claims |= {"exploding"} if end > 1e6 and end >= 2 * start else set()
    if recording.over(lambda s: [broken(s)]):
        claims.add("non-finite")
    if recording.over(lambda s: (rho(m, out) > 0.85 for m, _, out in s.squashed)):
        claims.add("saturation")
    if recording.over(lambda s: (mean(quiet(r)) > 0.5 for r in s.rectified)):
        claims.add("dead units")
    return claims | updates(recording, 1e-4, 1e-1)


def rho(module: nn.Module, output: Tensor) -> float:
    """The saturation measure of Rakitianskaia and Engelbrecht: mean |output|, range scaled to [-1, 1]."""
    scaled = output * 2 - 1 if isinstance(module, (nn.Sigmoid, nn.Hardsigmoid)) else output
    return mean(scaled.abs())


def quiet(rectified: Tensor) -> Tensor:
    """Units whose 95th percentile stays under 1e-5."""
    rows = rectified.flatten(0, -2)
    return (torch.quantile(rows[:4096], 0.95, dim=0) < 1e-5).float()


PEERS: dict[str, Callable[[Recording], set[str]]] = {
    "SageMaker": sagemaker,
    "AutoTrainer": autotrainer,
    "DeepDiagnosis": deep_diagnosis,
    "TheDeepChecker": deep_checker,
}


def claims(model: nn.Module, batch: Any, loss: Any, optimizer: Any = None) -> dict[str, list[str]]:
    """What each system says about a model, sorted."""
    recording = record(model, batch, loss, optimizer)
    return {name: sorted(rule(recording)) for name, rule in PEERS.items()}


def names(claimed: Iterable[str], code: str) -> bool:
    """Whether one of the claims stands for this code."""
    return any(code in NAMED[claim] for claim in claimed)
