"""Several views of a picture, whose answers are joined: itself, mirrored, smaller (test-time augmentation).

Notable:
- Boxes of all views are brought back to the picture and suppress each other as one set.
- A mask is mixed from the prototypes of the view that its box is from: the prototypes of all views stand one
  behind the other, and a box's coefficients of other views are zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # scale, and whether mirrored: usual for detectors
Found = tuple[Tensor, Tensor | None]  # decoded (B, 4 + C + E, A), prototypes (B, E, h, w)


@torch.no_grad()
def call_once(network: nn.Module, x: Tensor) -> Found:
    """The decoded output, and the prototypes of masks if there are any, on the CPU."""
    output = network(x)
    if isinstance(output, Tensor):
        return output.float().cpu(), None
    return output[0].float().cpu(), output[1].float().cpu()


def call_in_views(network: nn.Module, x: Tensor, classes: int, stride: int) -> Found:
    """The outputs for all views of images (B, 3, S, S), in pixels of the whole image, as one."""
    found = [_call_view(network, x, scale, mirrored, stride) for scale, mirrored in VIEWS]
    if found[0][1] is None:
        return torch.cat([decoded for decoded, _ in found], 2), None
    prototypes = [p for _, p in found if p is not None]
    size = prototypes[0].shape[-2:]
    large = [interpolate(p, size, mode="bilinear", align_corners=False) for p in prototypes]
    boxes = torch.cat([decoded[:, : 4 + classes] for decoded, _ in found], 2)
    stack: Any = torch.block_diag
    mixing = [stack(*(d[i, 4 + classes :] for d, _ in found)) for i in range(len(x))]
    return torch.cat((boxes, torch.stack(mixing)), 1), torch.cat(large, 1)


def _call_view(network: nn.Module, x: Tensor, scale: float, mirrored: bool, stride: int) -> Found:
    """The output for one view, in pixels of the whole image."""
    side = x.shape[-1]
    wanted = -(-round(side * scale) // stride) * stride
    seen = x if wanted == side else interpolate(x, (wanted, wanted), mode="bilinear", antialias=True)
    decoded, prototypes = call_once(network, seen.flip(-1) if mirrored else seen)
    boxes = decoded[:, :4] * (side / wanted)
    if mirrored:
        boxes = torch.cat((side - boxes[:, :1], boxes[:, 1:]), 1)
        prototypes = None if prototypes is None else prototypes.flip(-1)
    return torch.cat((boxes, decoded[:, 4:]), 1), prototypes
