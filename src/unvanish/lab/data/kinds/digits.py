"""Handwritten digits, 8x8 pixels in 17 grey levels: scikit-learn's copy of the UCI test set, 1,797 images.

Built in, no download. A fifth of every class is held out for validation, always the same (Alpaydin and Kaynak
1998, "Optical Recognition of Handwritten Digits").
"""

from __future__ import annotations

import numpy as np
import torch

from unvanish.lab.data.content import Content, Source, tensor_content
from unvanish.lab.data.part import hold_out

TASKS = ("classify",)


def read(source: Source, *, crop: int = 0, flip: bool = False) -> Content:
    """The digits as uint8 images (1, 8, 8), or scaled to `imgsz`."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    y = torch.from_numpy(bunch.target.astype(np.int64))
    held, kept = (torch.from_numpy(part) for part in hold_out(y.numpy(), 0.2))
    return tensor_content(
        source, (x[kept], y[kept]), (x[held], y[held]), [str(i) for i in range(10)], crop, flip
    )
