"""What true objects were taken for: a confusion matrix with a class more, the background.

Notable: pairs are made by overlap whatever the classes, so an object that was found under a wrong name is
seen as such. A row is what an object is, a column what it was called; what was missed is called background,
and what was found where nothing is, is background.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.lab.detection.matching import by_overlap

SURE, PAIR = 0.25, 0.45  # confidence and overlap above which a detection counts


def confused(scores: Tensor, labels: Tensor, real: Tensor, overlap: Tensor, classes: int) -> Tensor:
    """The counts (classes + 1, classes + 1) of an image: rows the truth, the background last.

    Of its detections (n,), its objects' classes (g,), and the overlaps (n, g).
    """
    sure = scores > SURE
    called, fits = labels[sure].long(), overlap[sure]
    pair = by_overlap(fits, PAIR)
    found = pair >= 0
    missed = torch.ones(len(real), dtype=torch.bool)
    missed[pair[found]] = False
    objects = real.long()
    none = torch.tensor([classes])
    rows = torch.cat((objects[pair[found]], none.expand(int((~found).sum())), objects[missed]))
    columns = torch.cat((called[found], called[~found], none.expand(int(missed.sum()))))
    side = classes + 1
    return torch.bincount(rows * side + columns, minlength=side**2).view(side, side)
