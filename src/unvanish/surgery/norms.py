"""Normalisation layers for the output of a layer, by its kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unvanish.surgery.receipt import SurgeryError

KINDS = ("batch", "layer", "rms", "group")
BATCH = {
    "linear": nn.BatchNorm1d,
    "conv1d": nn.BatchNorm1d,
    "conv2d": nn.BatchNorm2d,
    "conv3d": nn.BatchNorm3d,
}


class ChannelNorm(nn.GroupNorm):
    """LayerNorm of an image: one group over all channels and positions."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


def features(layer: nn.Module) -> int:
    """The number of a layer's output features; SurgeryError if it is not known."""
    for name in ("out_features", "out_channels", "normalized_shape", "num_features", "num_channels"):
        found = getattr(layer, name, None)
        if found is not None:
            return int(found[-1] if isinstance(found, (tuple, list)) else found)
    raise SurgeryError(f"a {type(layer).__name__} does not say how many output features it has")


def dimensions(layer: nn.Module) -> int:
    """Spatial dimensions of a layer's output: 0 for a vector, 2 for an image."""
    for k in (1, 2, 3):
        kinds = (getattr(nn, f"Conv{k}d"), getattr(nn, f"ConvTranspose{k}d"), getattr(nn, f"BatchNorm{k}d"))
        if isinstance(layer, kinds) and not (k == 1 and isinstance(layer, nn.BatchNorm1d)):
            return k
    return 0


def norm(layer: nn.Module, kind: str, groups: int = 8) -> nn.Module:
    """A new normalisation for a layer's output; SurgeryError if the kind is unknown."""
    size, spatial = features(layer), dimensions(layer)
    if kind == "batch":
        return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[spatial](size)
    if kind == "group" or (kind in ("layer", "rms") and spatial):
        return nn.GroupNorm(
            max(g for g in range(1, groups + 1) if size % g == 0) if kind == "group" else 1, size
        )
    if kind == "layer":
        return nn.LayerNorm(size)
    if kind == "rms":
        return nn.RMSNorm(size)
    raise SurgeryError(f"no normalisation {kind!r}; use one of {', '.join(KINDS)}")


@torch.no_grad()
def calibrate(layer: nn.Module, seen: Tensor) -> None:
    """Make a BatchNorm the identity on an input (B, C, *): its scale is the deviation, its shift the mean."""
    assert isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    over = [d for d in range(seen.ndim) if d != 1]
    wide = seen.detach().double()
    average, variance = wide.mean(over), wide.var(over, unbiased=False)
    layer.weight.copy_((variance + layer.eps).sqrt())
    layer.bias.copy_(average)
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean.copy_(average)
        layer.running_var.copy_(variance)
