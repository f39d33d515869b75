"""One look, all sites together: a block of numbers on the device, agreed on by all ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unvanish.clinic.watch.history import LIVE
from unvanish.clinic.watch.ranks import summed
from unvanish.probes.live.eyes import Eyes
from unvanish.probes.live.gist import SEEN
from unvanish.probes.live.updates import Parameters, statistics


def block(
    eyes: Eyes, parameters: Parameters, squares: Tensor, scale: float, loss_scale: float, ranks: int
) -> tuple[Tensor, Tensor]:
    """The gradients' norm before clipping, and the statistics [site, LIVE], float64.

    `scale`: of the gradients in `squares`; `loss_scale`: of the gradients of activations.
    """
    changes = parameters.changes()
    seen = eyes.seen()
    count = len(eyes.chart.sites) if eyes.chart is not None else 0
    if ranks > 1:
        seen, squares, changes = summed(seen, squares, changes, parameters.sharded, ranks)
    before = squares[:, 0].sum().sqrt() / scale
    moved = statistics(squares, changes, scale)
    found = torch.full((count + len(moved), len(LIVE)), math.nan, dtype=torch.float64, device=moved.device)
    if seen is not None:
        found[:count, : len(SEEN)] = seen.to(found.device)
        found[:count, SEEN.index("backward_log")] -= math.log(loss_scale)
    found[count:, len(SEEN) :] = moved
    return before, found
