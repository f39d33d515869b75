"""What a model is before and after it was recorded, and small models to record."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unvanish.core.trace import Trace


class Functional(nn.Module):
    """Activations called as functions, in place, and a layer used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.head = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x), inplace=True)
        for _ in range(3):
            x = torch.tanh_(self.shared(x))
        return self.head(x)


def log(gradient: Tensor) -> float:
    norm = float(gradient.double().norm())
    return math.log(norm) if norm else -math.inf


def parameter_logs(trace: Trace) -> dict[str, float]:
    return {trace.sites[i].path: trace.value(i, "gradient_log") for i in trace.where("parameter")}


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {k: (v.clone(), v._version) for k, v in model.state_dict(keep_vars=True).items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # type: ignore[index]
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, (tensor, version) in before["tensors"].items():
        now, version_now = after["tensors"][name]
        assert torch.equal(tensor, now), name
        if not any(part in name for part in ("running", "num_batches", "weight_u", "weight_v")):
            assert version == version_now, name
    assert all(
        (a is None and b is None) or torch.equal(a, b)
        for a, b in zip(before["grads"], after["grads"], strict=True)
    )
    assert torch.equal(before["torch"], after["torch"])
    assert (before["numpy"] == after["numpy"]).all()
    for key in ("modes", "hooks", "attributes", "python", "grad mode", "fast path"):
        assert before[key] == after[key], key


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def labelled() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 6), torch.randint(0, 3, (5,))
