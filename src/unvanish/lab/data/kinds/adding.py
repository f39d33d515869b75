"""The adding problem: two of T random numbers are marked, the answer is their sum.

x is (B, T, 2): numbers uniform in [0, 1), and a mark that is 1 once in each half of the sequence, else 0; y
(B,) is the sum. A constant answer of 1 has a mean squared error of 1/6 = 0.167. Every training batch is newly
drawn, and an epoch is `samples` samples; validation is a fixed set (Hochreiter and Schmidhuber 1997,
experiment 4, in the form of Arjovsky et al. 2016, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.limits import refuse_large
from unvanish.lab.data.part import Fresh, Tensors, seed_generator
from unvanish.lab.data.problems import DataError

TASKS = ("sequence",)


@dataclass(frozen=True)
class Adding:
    """Generates sequences of one length."""

    length: int

    def __call__(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Generate x (count, length, 2) and y (count,)."""
        half = self.length // 2
        values = torch.rand(count, self.length, generator=generator)
        first = torch.randint(0, half, (count, 1), generator=generator)
        second = torch.randint(half, self.length, (count, 1), generator=generator)
        marks = torch.zeros(count, self.length).scatter_(1, torch.cat([first, second], 1), 1.0)
        return torch.stack([values, marks], -1), (values * marks).sum(1)


def read(source: Source, *, length: int = 200, samples: int = 10_000, val_samples: int = 1000) -> Content:
    """The adding problem over `length` steps."""
    if length < 2:
        raise DataError(f"{source.spec.name}: length must be 2 or more, it is {length}")
    refuse_large(24.0 * val_samples * length + 8 * samples, "length and val_samples")
    make = Adding(length)
    facts = {"features": 2, "outputs": 1, "length": length}
    preparation = {"input": "sequence", **facts}
    held = Tensors(*make(val_samples, seed_generator(1997, 0)))
    return Content(Fresh(samples, make), held, facts, preparation=preparation)
