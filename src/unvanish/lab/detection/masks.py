"""Masks mixed from prototypes and cropped to boxes.

References: Bolya et al. 2019 (YOLACT, arXiv 1904.02689, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

COARSE = 4  # pixels of an image along a pixel of its masks


def mix_masks(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """Logits (n, H, W) of masks from coefficients (n, E) and an image's prototypes (E, H, W)."""
    return (coefficients @ prototypes.flatten(1)).view(-1, *prototypes.shape[1:])


def inside_boxes(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Which pixels (n, rows, columns) lie in boxes (n, 4), corners in these pixels."""
    x = torch.arange(columns, device=boxes.device, dtype=boxes.dtype)
    y = torch.arange(rows, device=boxes.device, dtype=boxes.dtype)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    wide, high = (x >= x1) & (x < x2), (y >= y1) & (y < y2)
    return wide[:, None, :] & high[:, :, None]
