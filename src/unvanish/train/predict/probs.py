"""The probabilities of classes, under the names that users of classifiers know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from unvanish.train.predict.movable import Movable


@dataclass(frozen=True)
class Probs(Movable):
    """Probabilities `data` (classes,), a tensor or an array."""

    data: Any

    @property
    def top1(self) -> int:
        """The most probable class."""
        return int(self.data.argmax())

    @property
    def top1conf(self) -> Any:
        """Its probability."""
        return self.data.max()

    @property
    def top5(self) -> list[int]:
        """The five most probable classes, best first."""
        found = torch.as_tensor(self.data)
        return [int(i) for i in found.topk(min(5, len(found))).indices]

    @property
    def top5conf(self) -> Any:
        """Their probabilities."""
        return self.data[self.top5]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of classes, in a tuple."""
        return tuple(self.data.shape)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Any:
        return self.data[index]
