"""Boxes and their overlap: IoU, and complete IoU, which has a gradient for separate boxes too.

Boxes are (..., 4): corners x1, y1, x2, y2, or centres x, y, w, h. Functions of two sets broadcast.

References: Zheng et al. 2020 (complete IoU, arXiv 1911.08287).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7


def corners(xywh: Tensor) -> Tensor:
    """Boxes as corners, from centre and size."""
    centre, half = xywh[..., :2], xywh[..., 2:4] / 2
    return torch.cat((centre - half, centre + half), -1)


def centre_size(xyxy: Tensor) -> Tensor:
    """Boxes as centre and size, from corners."""
    low, high = xyxy[..., :2], xyxy[..., 2:4]
    return torch.cat(((low + high) / 2, high - low), -1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes given by corners, 0 if one has no area."""
    shared, union = _areas(a, b)
    return shared / union.clamp_min(EPS)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes given by corners: lower for distant centres and different shapes, at most 1."""
    shared, union = _areas(a, b)
    plain = shared / (union + EPS)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]).square().sum(-1) / 4
    shape = (4 / math.pi**2) * (_angle(b) - _angle(a)).square()
    with torch.no_grad():
        weight = shape / (shape - plain + (1 + EPS))
    return plain - (apart / (around.square().sum(-1) + EPS) + shape * weight)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union."""
    inner = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = inner.clamp_min(0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    return shared, area_a + area_b - shared


def _angle(box: Tensor) -> Tensor:
    """The angle whose tangent is width over height."""
    size = box[..., 2:] - box[..., :2]
    return torch.atan(size[..., 0] / (size[..., 1] + EPS))
