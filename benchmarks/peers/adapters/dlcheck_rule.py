"""DLCheck (a Lightning callback in a repository, no package): the rules that it applies by itself.

Notable: written from what it compares, with the trial as its one epoch: norm, zeros and NaN of each gradient,
update over weight, units of `nn.ReLU` at zero, mean |output| of `nn.Sigmoid` and `nn.Tanh`, weights without a
spread at the start, weights that did not move.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said

SPREAD = 1e-6  # of weights at the start
SMALL, LARGE = 1e-7, 1e6  # norm of a parameter's gradient
SLOW, WILD = -8.0, 1.0  # log10 of rate x mean |gradient| / mean |weight|
DEAD = 0.95
FLAT = (0.05, 0.95)  # mean |output| of a squashing layer


class DlcheckRule(Adapter):
    """All of its warnings count."""

    TITLE = "DLCheck (its rules)"
    CLAIMS: ClassVar = {
        "small weight variance": "initialisation",
        "nan": "non-finite",
        "vanishing": "vanishing",
        "exploding": "exploding",
        "zero gradient": "no gradient",
        "not updated": "does not move",
        "slow": "update too small",
        "unstable": "update too large",
        "dead": "dead units",
        "saturated": "saturation",
    }

    def begin(self, trial: Trial) -> None:
        self.warned: dict[str, str] = {}
        self.ratios: dict[str, list[float]] = defaultdict(list)
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.first = {n: p.detach().clone() for n, p in learned(trial)}
        for name, p in learned(trial):
            if p.numel() > 1 and float(p.detach().float().std()) < SPREAD:
                self.warned[f"{name} has very small weight variance"] = name
        self.hooks = [
            module.register_forward_hook(self.reader(name))
            for name, module in trial.model.named_modules()
            if isinstance(module, nn.ReLU | nn.Sigmoid | nn.Tanh)
        ]

    def reader(self, name: str) -> Any:
        """Notes the share of zeros of a rectifier, or how far out a squashing layer is."""

        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            seen = output.detach().float()
            part = (seen == 0).float() if isinstance(module, nn.ReLU) else seen.abs()
            self.parts[name].append(float(part.mean()))

        return hook

    def before_step(self, step: int, loss: float, trial: Trial) -> None:
        rate = max(group["lr"] for group in trial.optimizer.param_groups)
        for name, p in learned(trial):
            if p.grad is not None:
                self.read(name, p.grad.to_dense() if p.grad.is_sparse else p.grad, p, rate)

    def read(self, name: str, gradient: Tensor, p: Tensor, rate: float) -> None:
        """Its comparisons of one gradient."""
        if not bool(torch.isfinite(gradient).all()):
            self.warned[f"{name} had NaN/Inf gradients"] = name
            return
        norm = float(gradient.float().norm())
        if norm > LARGE:
            self.warned[f"{name} had exploding gradients"] = name
        if norm == 0:
            self.warned[f"{name} had zero gradients"] = name
            return
        if norm < SMALL:
            self.warned[f"{name} had vanishing gradients"] = name
        weight = float(p.detach().float().abs().mean())
        if weight > 0:
            self.ratios[name].append(rate * float(gradient.float().abs().mean()) / weight)

    def speak(self, trial: Trial) -> list[Said]:
        for name, p in learned(trial):
            if torch.equal(p.detach(), self.first[name]):
                self.warned[f"{name} was not updated"] = name
        for name, ratios in self.ratios.items():
            size = math.log10(sum(ratios) / len(ratios) + 1e-32)
            if not SLOW <= size <= WILD:
                self.warned[f"{name} is {'slow' if size < SLOW else 'unstable'}: 10^{size:.1f}"] = name
        modules = dict(trial.model.named_modules())
        for name, parts in self.parts.items():
            mean, dead = sum(parts) / len(parts), isinstance(modules[name], nn.ReLU)
            if dead and mean > DEAD:
                self.warned[f"{name} has dead units"] = name
            if not dead and not FLAT[0] <= mean <= FLAT[1]:
                self.warned[f"{name} is saturated: {mean:.3f}"] = name
        return [self.mean(words, name) for words, name in self.warned.items()]

    def end(self) -> None:
        for hook in getattr(self, "hooks", ()):
            hook.remove()


def learned(trial: Trial) -> list[tuple[str, nn.Parameter]]:
    """Its trainable parameters by name."""
    return [(n, p) for n, p in trial.model.named_parameters() if p.requires_grad]


ADAPTER = DlcheckRule
