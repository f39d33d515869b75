"""The copy task: remember ten symbols over T blank steps, then repeat them in order.

x is (B, T + 20, 10), one-hot: ten symbols of eight, T - 1 blanks, a signal, ten blanks; y (B, T + 20) is
blank (0) except for the ten symbols (1 to 8) at the end. Blanks do not count, so the best loss without memory
is ln 8 nats per symbol. Every training batch is newly drawn (Hochreiter and Schmidhuber 1997; Arjovsky et al.
2016, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from unvanish.lab.data.content import Content, Source
from unvanish.lab.data.limits import refuse_large
from unvanish.lab.data.part import Fresh, Tensors, seed_generator
from unvanish.lab.data.problems import DataError

TASKS = ("sequence",)
SYMBOLS, WORD, BLANK, SIGNAL = 8, 10, 0, 9


@dataclass(frozen=True)
class Copying:
    """Generates sequences with a pause of fixed length."""

    pause: int

    def __call__(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Generate x (count, pause + 20, 10) and y (count, pause + 20)."""
        word = torch.randint(1, SYMBOLS + 1, (count, WORD), generator=generator)
        shown = torch.full((count, self.pause + 2 * WORD), BLANK)
        shown[:, :WORD] = word
        shown[:, WORD + self.pause - 1] = SIGNAL
        y = torch.full_like(shown, BLANK)
        y[:, -WORD:] = word
        return one_hot(shown, SYMBOLS + 2).float(), y


def read(source: Source, *, pause: int = 100, samples: int = 10_000, val_samples: int = 1000) -> Content:
    """The copy task over a pause of `pause` steps."""
    if pause < 1:
        raise DataError(f"{source.spec.name}: pause must be 1 or more, it is {pause}")
    refuse_large(160.0 * val_samples * (pause + 2 * WORD) + 8 * samples, "pause and val_samples")
    make = Copying(pause)
    classes = SYMBOLS + 1
    facts = {"features": SYMBOLS + 2, "outputs": classes, "classes": classes, "length": pause + 2 * WORD}
    preparation = {"input": "sequence", **facts}
    return Content(
        Fresh(samples, make),
        Tensors(*make(val_samples, seed_generator(1997, 0))),
        facts,
        ("blank", *"ABCDEFGH"),
        preparation=preparation,
    )
