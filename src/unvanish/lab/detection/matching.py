"""Which found object is which true one: one to one, without a loop over objects.

Notable:
- In order of confidence, as average precision asks: everyone claims the object it fits best, of several
  claims the surest stands, and who lost claims its next one. It ends where going one by one ends.
- In order of overlap: who fit each other best of all are a pair and step aside, until nobody is left.

References: Gale and Shapley 1962 (deferred acceptance); Lin et al. 2014 (COCO, arXiv 1405.0312).
"""

from __future__ import annotations

import torch
from torch import Tensor


def by_rank(overlap: Tensor, least: float) -> Tensor:
    """The true object (n,) each found one takes, -1 for none, where the surer one chooses first.

    `overlap` (n, g) of found objects, surest first, with true ones; only `least` or more can be taken.
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


def by_overlap(overlap: Tensor, least: float) -> Tensor:
    """The true object (n,) each found one is paired with, -1 for none, the best overlaps first.

    `overlap` (n, g) of found with true objects; only more than `least` makes a pair.
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
