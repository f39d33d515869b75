"""The confusion matrix of detections, with the background as an additional class.

Notable: pairs are matched by overlap alone, so an object found under a wrong class counts as such. Rows are
true classes, columns predicted ones; a missed object is predicted as background, and the true class of a
detection without an object is background.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.lab.detection.matching import match_by_overlap

SURE, PAIR = 0.25, 0.45  # confidence and overlap above which a detection counts


def count_confusions(scores: Tensor, labels: Tensor, real: Tensor, overlap: Tensor, classes: int) -> Tensor:
    """Count an image's confusions (classes + 1, classes + 1): rows are true, the background is last.

    `scores` and `labels` of its detections (n,), `real` its objects' classes (g,), `overlap` (n, g).
    """
    sure = scores > SURE
    called, fits = labels[sure].long(), overlap[sure]
    pair = match_by_overlap(fits, PAIR)
    found = pair >= 0
    missed = torch.ones(len(real), dtype=torch.bool)
    missed[pair[found]] = False
    objects = real.long()
    none = torch.tensor([classes])
    rows = torch.cat((objects[pair[found]], none.expand(int((~found).sum())), objects[missed]))
    columns = torch.cat((called[found], called[~found], none.expand(int(missed.sum()))))
    side = classes + 1
    return torch.bincount(rows * side + columns, minlength=side**2).view(side, side)
