"""ZClip: clips only gradients that are outliers in the run's own history.

What it does

The norm's mean and deviation are averaged over the run (decay 0.97, the first 25 steps unclipped); a norm
more than z = 2.5 deviations above the mean is reduced to z^2/score deviations. There is no limit to tune, and
a spike enters the history only after clipping. A step with a non-finite gradient is skipped.

Safety

It changes the training, not the function.

Reference: Kumar et al. 2025.
"""

from __future__ import annotations

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.surgery.clipping import ZScoreClip
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "exact"


def apply(
    surgery: Surgery, targets: tuple[str, ...], *, z: float = 2.5, decay: float = 0.97, warm_up: int = 25
) -> None:
    """Clip before every step of the surgery's optimizer."""
    if z <= 0 or not 0 < decay < 1 or warm_up < 2:
        raise SurgeryError(
            f"zclip: z is {z} (above 0), decay {decay} (between 0 and 1), warm_up {warm_up} (2 or more)"
        )
    surgery.around("zclip", ZScoreClip(z, decay, warm_up))


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    p = remedy.parameters
    z, decay, warm_up = p.get("z", 2.5), p.get("decay", 0.97), p.get("warm_up", 25)
    span = max(2, round(1 / (1 - min(decay, 0.999))))
    return [
        "norms = []",
        "def clip(optimizer, args, kwargs):",
        "    parameters = [p for g in optimizer.param_groups for p in g['params'] if p.grad is not None]",
        "    norm = float(nn.utils.get_total_norm([p.grad for p in parameters]))",
        f"    if len(norms) >= {warm_up}:",
        f"        std, mean = torch.std_mean(torch.tensor(norms[-{span}:]))",
        f"        if norm > mean + {z:g} * std:",
        f"            norm = float(mean + {z:g} ** 2 * std ** 2 / (norm - mean))",
        "            nn.utils.clip_grad_norm_(parameters, norm, error_if_nonfinite=True)",
        "    norms.append(norm)",
        "optimizer.register_step_pre_hook(clip)",
    ]


def case() -> tuple[Case, Remedy]:
    """A linear classifier."""
    torch.manual_seed(0)
    batch = torch.randn(8, 8), torch.randint(0, 3, (8,))
    return Case(nn.Linear(8, 3), batch, nn.CrossEntropyLoss()), Remedy("zclip", (), "spikes only", "exact")
