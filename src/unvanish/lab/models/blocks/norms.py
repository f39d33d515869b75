"""Normalisations by name: batch, steady, layer, rms, group, instance, none; for images and for sequences.

Notable:
- `dims` gives the position of the channels. 2: second of (B, C, H, W); 1: last of (B, T, C) or (B, C).
- "steady" is the batch normalisation of detectors: eps 1e-3, and running statistics with a momentum of 0.03,
  since their batches are small.

References: Ioffe and Szegedy 2015 (batch); Ba et al. 2016 (layer); Zhang and Sennrich 2019 (rms); Wu and
He 2018 (group); Ulyanov et al. 2016 (instance).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import IMAGE, SERIES, Example

NAMES = ("batch", "steady", "layer", "rms", "group", "instance", "none")
ALIASES = {
    "bn": "batch", "batchnorm": "batch", "batch_norm": "batch", "ln": "layer", "layernorm": "layer",
    "layer_norm": "layer", "rmsnorm": "rms", "rms_norm": "rms", "gn": "group", "groupnorm": "group",
    "group_norm": "group", "in": "instance", "identity": "none", "": "none",
}  # fmt: skip
GROUPS = 32
STEADY = (1e-3, 0.03)  # eps, momentum


class ChannelRMSNorm(nn.Module):
    """x / rms over the channels, position by position, times a gain: (B, C, H, W) to the same."""

    def __init__(self, width_in: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width_in, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return y


class LastBatchNorm(nn.Module):
    """Batch normalisation of the last dimension: (B, T, C) or (B, C) to the same."""

    def __init__(self, width_in: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width_in, eps, momentum)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x) if x.ndim == 2 else self.norm(x.transpose(1, 2)).transpose(1, 2)
        return y


def plain_name(name: str) -> str:
    """The name in this table; ValueError, with the nearest name, if it is unknown."""
    key = str(name or "none").lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in NAMES:
        raise ValueError(f"no norm {name!r}{suggest(str(name), NAMES)}; there are {', '.join(NAMES)}")
    return key


def norm(name: str, width: int, dims: int = 2) -> nn.Module:
    """A new normalisation of `width` channels for tensors with `dims` (1 or 2) dimensions of positions."""
    key = plain_name(name)
    if key == "none":
        return nn.Identity()
    if key == "steady":
        return LastBatchNorm(width, *STEADY) if dims == 1 else nn.BatchNorm2d(width, *STEADY)
    if dims == 1:
        last: dict[str, type[nn.Module]] = {"batch": LastBatchNorm, "layer": nn.LayerNorm, "rms": nn.RMSNorm}
        if key not in last:
            raise ValueError(f"norm {name!r} is for images; for sequences use {', '.join(last)} or none")
        return last[key](width)
    if key in ("layer", "group"):
        return nn.GroupNorm(1 if key == "layer" else math.gcd(GROUPS, width), width)
    images: dict[str, type[nn.Module]] = {
        "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "rms": ChannelRMSNorm
    }  # fmt: skip
    return images[key](width, affine=True) if key == "instance" else images[key](width)


EXAMPLES = {
    ChannelRMSNorm: Example({}, [IMAGE], IMAGE),
    LastBatchNorm: Example({}, [SERIES], SERIES),
}
