"""Task-aligned assignment: which cells are trained to predict which object.

Notable:
- A cell is rated by its score for the object's class and the fit of its box, score^0.5 CIoU^6; the ten best
  cells with their centre inside the true box are assigned to it. A cell that two objects claim goes to the
  one whose box it fits best.
- `least` is the minimal side of a box, in cells of the finest level, when cells are looked for: otherwise
  boxes smaller than a cell may contain no centre and are never learned. 0 as first published, 2 in later
  releases.
- The target of a cell's score is its rating relative to the object's best cell, times the best fit.

References: Feng et al. 2021 (TOOD, arXiv 2108.07755, equations 1 and 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unvanish.lab.detection.boxes import centre_size, ciou, corners
from unvanish.lab.detection.truth import Truth

TOP, ALPHA, BETA = 10, 0.5, 6.0
INSIDE, EPS = 1e-9, 1e-9


@dataclass(frozen=True)
class Assigned:
    """Per cell: whether it is assigned (B, A), the object of its image (B, A), targets (B, A, C)."""

    positive: Tensor
    objects: Tensor
    scores: Tensor

    @property
    def weights(self) -> Tensor:
        """The weight of each cell's box, (B, A): its target score."""
        return self.scores.sum(-1)


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, centres: Tensor, truth: Truth, top: int = TOP, least: float = 0.0
) -> Assigned:
    """Assign cells with scores (B, A, C), boxes (B, A, 4) by corners and centres (A, 2) to true objects."""
    images, cells = scores.shape[:2]
    if not truth.real.shape[1]:
        none = torch.zeros(images, cells, dtype=torch.bool, device=scores.device)
        return Assigned(none, none.long(), torch.zeros_like(scores))
    inside = _inside(centres, _grown(truth.boxes, least)) & truth.real[..., None]  # (B, G, A)
    fit = ciou(truth.boxes[:, :, None], boxes[:, None]).clamp_min(0) * inside
    own = truth.classes[..., None].expand(-1, -1, cells)
    metric = scores.transpose(1, 2).gather(1, own).pow(ALPHA) * fit.pow(BETA)
    claimed = _best(metric, min(top, cells)) & (metric > 0)
    claimed = _once(claimed, fit)
    positive, objects = claimed.any(1), claimed.int().argmax(1)
    metric, fit = metric * claimed, fit * claimed
    share = metric * fit.amax(-1, keepdim=True) / (metric.amax(-1, keepdim=True) + EPS)
    target = torch.zeros_like(scores)
    label = truth.classes.gather(1, objects)
    target.scatter_(2, label[..., None], share.amax(1)[..., None])
    return Assigned(positive, objects, target)


def _grown(boxes: Tensor, least: float) -> Tensor:
    """Boxes (B, G, 4) with sides of at least `least` and the same centres."""
    middle, size = centre_size(boxes).chunk(2, -1)
    return corners(torch.cat((middle, size.clamp_min(least)), -1)) if least > 0 else boxes


def _inside(centres: Tensor, boxes: Tensor) -> Tensor:
    """Whether centres (A, 2) lie inside boxes (B, G, 4), (B, G, A)."""
    low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]
    return torch.minimum(centres - low, high - centres).amin(-1) > INSIDE


def _best(metric: Tensor, top: int) -> Tensor:
    """The `top` cells of each object, as a mask (B, G, A)."""
    found = torch.zeros_like(metric, dtype=torch.bool)
    return found.scatter_(-1, metric.topk(top).indices, True)


def _once(claimed: Tensor, fit: Tensor) -> Tensor:
    """The claims (B, G, A); if several objects claim a cell, only that of the object it fits best."""
    best = torch.zeros_like(claimed).scatter_(1, fit.argmax(1, keepdim=True), True)
    return torch.where(claimed.sum(1, keepdim=True) > 1, best, claimed)
