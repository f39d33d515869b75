"""Images read pixel by pixel: x is (B, H * W, C), y the class; the long-memory test of Le et al. 2015.

`of` names the data set whose images are read, row by row; with `permuted` the pixels come in one fixed random
order, which removes the short-range structure. `order` is the seed of that order (Le, Jaitly and Hinton 2015,
"A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unvanish.lab.data import spec
from unvanish.lab.data.augment import Pixels
from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.part import Batch
from unvanish.lab.data.problems import DataError

TASKS = ("sequence",)


@dataclass(frozen=True)
class Scan:
    """From images to sequences of pixels, in a fixed order."""

    pixels: Pixels
    order: Tensor

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        x, y = self.pixels(batch, generator)
        return x.flatten(2)[..., self.order].transpose(1, 2).contiguous(), y


def read(source: Source, *, of: str = "digits.yaml", permuted: bool = False, order: int = 92916) -> Content:
    """The images of another set as sequences."""
    inner = spec.read(of)
    if inner.kind.name == source.spec.kind.name:
        raise DataError(f"{source.spec.name}: `of: {of}` must name a set of images")
    content = replace(source, spec=inner).read()
    if not isinstance(content.still, Pixels):
        raise DataError(f"{source.spec.name}: `of: {of}` has no images that can be read pixel by pixel")
    length, channels = int(content.facts["size"]) ** 2, int(content.facts["channels"])
    generator = torch.Generator().manual_seed(order)
    steps = torch.randperm(length, generator=generator) if permuted else torch.arange(length)
    classes = int(content.facts["classes"])
    facts = {"features": channels, "outputs": classes, "classes": classes, "length": length}
    view = Scan(content.still, steps)
    preparation = {"input": "sequence", **facts, "names": list(content.names)}
    return Content(content.train, content.val, facts, content.names, None, view, view, preparation)
