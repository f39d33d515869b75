"""Augmentation and normalisation of a whole batch of images at once, on uint8 tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from unvanish.lab.data.part import Batch


@dataclass(frozen=True)
class Pixels:
    """From uint8 images (B, C, H, W) to floats with mean 0 and deviation 1 over the set, augmented or not.

    `crop`: black pixels added on every side before a random crop; `flip`: half of the images are mirrored.
    """

    mean: tuple[float, ...]  # of each channel, in 0 to 1
    std: tuple[float, ...]
    crop: int = 0
    flip: bool = False

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        x, y = batch
        if self.crop:
            x = random_crop(x, self.crop, generator)
        if self.flip:
            x = random_flip(x, generator)
        return self.normalise(x), y

    def normalise(self, x: Tensor) -> Tensor:
        """(x / 255 - mean) / std, channel by channel."""
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        return x.float().mul_(1 / (255 * std)).sub_(mean / std)

    def still(self) -> Pixels:
        """The same without augmentation."""
        return Pixels(self.mean, self.std)


def random_crop(x: Tensor, border: int, generator: torch.Generator) -> Tensor:
    """Shift images (B, C, H, W) by up to `border` pixels, filled with black (He et al. 2016, 4.2)."""
    rows, columns = x.shape[-2:]
    windows = pad(x, [border] * 4).unfold(2, rows, 1).unfold(3, columns, 1)  # (B, C, dy, dx, H, W), a view
    dy, dx = torch.randint(0, 2 * border + 1, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, dy, dx]


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror images (B, C, H, W) left to right, each with probability 1/2."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)


def statistics(x: Tensor, most: int = 5000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of uint8 images, in 0 to 1, over at most `most` of them."""
    some = x[:: max(1, -(-len(x) // most))].double() / 255
    mean, std = some.mean((0, 2, 3)), some.std((0, 2, 3), correction=0)
    std = torch.where(std > 1e-6, std, 1.0)  # an empty channel stays as it is
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std)


def resize(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Scale uint8 images (B, C, H, W) to (B, C, size, size): bilinear, antialiased when shrinking."""
    wanted = (size, size) if isinstance(size, int) else size
    if tuple(x.shape[-2:]) == wanted:
        return x
    scaled = interpolate(x.float(), wanted, mode="bilinear", antialias=True, align_corners=False)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)
