"""One-to-one matching of detections with true objects, without a loop over objects.

Notable:
- By confidence, as average precision requires: every detection claims the object it fits best, the most
  confident claim wins, and the losers claim their next best. The result is that of going one by one.
- By overlap: a detection and an object that fit each other best are a pair and leave, until none is left.

References: Gale and Shapley 1962 (deferred acceptance); Lin et al. 2014 (COCO, arXiv 1405.0312).
"""

from __future__ import annotations

import torch
from torch import Tensor


def match_by_confidence(overlap: Tensor, least: float) -> Tensor:
    """The true object (n,) matched with each detection, -1 for none; more confident detections choose first.

    `overlap` (n, g) of detections, most confident first, with true objects; a match needs at least `least`.
    """
    count, objects = overlap.shape
    rank = torch.arange(count)
    if not objects:
        return torch.full((count,), -1)
    left = overlap.masked_fill(overlap < least, -1)
    while True:
        fit, wish = left.max(1)
        claims = fit >= 0
        first = torch.full((objects,), count).scatter_reduce(0, wish[claims], rank[claims], "amin")
        lost = claims & (first[wish] != rank)
        if not lost.any():
            return torch.where(claims, wish, -1)
        left[rank[lost], wish[lost]] = -1


def match_by_overlap(overlap: Tensor, least: float) -> Tensor:
    """The true object (n,) paired with each detection, -1 for none; the best overlaps first.

    `overlap` (n, g) of detections with true objects; a pair needs more than `least`.
    """
    paired = torch.full((len(overlap),), -1)
    left = overlap.masked_fill(overlap <= least, -1)
    while left.numel() and (left >= 0).any():
        fit, wish = left.max(1)
        found = torch.arange(len(left))
        mutual = (fit >= 0) & (left.argmax(0)[wish] == found)
        paired[mutual] = wish[mutual]
        left[mutual] = -1
        left[:, wish[mutual]] = -1
    return paired
