"""Non-maximum suppression: of overlapping boxes the most confident stays. Exact, without a loop over boxes.

Notable:
- A box stays if no more confident box that stays overlaps it. This rule has one fixed point. Applied
  repeatedly, starting with all boxes, it settles at least one more box per round, and usually all within a
  few rounds.
- Boxes are processed in blocks, most confident first, until enough have stayed.

References: Felzenszwalb et al. 2010 (greedy suppression); Zheng et al. 2021 (as a fixed point, arXiv
2005.03572).
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.lab.detection.boxes import corners, iou

BLOCK = 512
MOST = 300  # detections of an image
CANDIDATES = 30_000


def suppress(boxes: Tensor, scores: Tensor, classes: Tensor, limit: float = 0.7, most: int = MOST) -> Tensor:
    """Indices of the boxes (N, 4), given by corners, that stay: the most confident first, at most `most`.

    A box is removed if a more confident one of its class that stays overlaps it by more than `limit`.
    """
    kept = torch.empty(0, dtype=torch.long, device=boxes.device)
    for block in torch.split(torch.argsort(scores, descending=True, stable=True), BLOCK):
        block = block[~_rivals(boxes, classes, kept, block, limit).any(0)]
        rivals = _rivals(boxes, classes, block, block, limit).triu(1)  # [more, less confident]
        stays = torch.ones(len(block), dtype=torch.bool, device=boxes.device)
        while not torch.equal(stays, now := ~(rivals & stays[:, None]).any(0)):
            stays = now
        kept = torch.cat((kept, block[stays]))
        if len(kept) >= most:
            break
    return kept[:most]


def _rivals(boxes: Tensor, classes: Tensor, a: Tensor, b: Tensor, limit: float) -> Tensor:
    """Whether boxes `a` and `b`, by index, are of one class and overlap by more than the limit: (a, b)."""
    over = iou(boxes[a, None], boxes[None, b]) > limit
    return over & (classes[a, None] == classes[None, b])


def detections(
    decoded: Tensor,
    classes: int,
    confidence: float = 0.25,
    limit: float = 0.7,
    most: int = MOST,
    several: bool = False,
    agnostic: bool = False,
) -> list[Tensor]:
    """For each image of a decoded output (B, 4 + classes + E, A), rows (n, 6 + E): corners, score, class, E.

    `several`: every class of a cell above the confidence counts, not only the best; `agnostic`: boxes of
    different classes suppress each other too.
    """
    return [_of_one(d, classes, confidence, limit, most, several, agnostic) for d in decoded]


def _of_one(
    decoded: Tensor, classes: int, confidence: float, limit: float, most: int, several: bool, agnostic: bool
) -> Tensor:
    cells = decoded.T
    scores = cells[:, 4 : 4 + classes]
    if several:
        row, label = (scores > confidence).nonzero(as_tuple=True)
        score = scores[row, label]
    else:
        best, chosen = scores.max(1)
        row = (best > confidence).nonzero()[:, 0]
        score, label = best[row], chosen[row]
    if len(row) > CANDIDATES:
        surest = score.topk(CANDIDATES).indices
        row, label, score = row[surest], label[surest], score[surest]
    boxes = corners(cells[row, :4])
    kept = suppress(boxes, score, torch.zeros_like(label) if agnostic else label, limit, most)
    columns = [boxes[kept], score[kept, None], label[kept, None].to(boxes), cells[row[kept], 4 + classes :]]
    return torch.cat(columns, 1)
