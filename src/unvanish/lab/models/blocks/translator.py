"""What every translator can do: encode a source once, then say the most likely next word again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PAD, BEGIN, END = 0, 1, 2


@dataclass(frozen=True)
class Encoded:
    """A source as the decoder reads it: memory (B, S, width), its real positions (B, S), a first state."""

    memory: Tensor
    mask: Tensor
    state: Any = None


class Translator(nn.Module, ABC):
    """An encoder and a decoder: (source (B, S), target so far (B, T)) to logits (B, T, target_vocabulary)."""

    @abstractmethod
    def encode(self, source: Tensor) -> Encoded:
        """Read the source (B, S)."""

    @abstractmethod
    def decode(self, target: Tensor, encoded: Encoded, state: Any) -> tuple[Tensor, Any]:
        """Logits (B, T, V) for the words after each of `target` (B, T), and the state to go on from."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of every next word, given the right words before it."""
        encoded = self.encode(source)
        return self.decode(target, encoded, encoded.state)[0]

    @torch.no_grad()
    def translate(self, source: Tensor, length: int = 50) -> Tensor:
        """The likeliest word at each step, (B, at most `length`); padding (0) after a sentence's end (2)."""
        encoded = self.encode(source)
        word, state, said = source.new_full((len(source), 1), BEGIN), encoded.state, []
        over = torch.zeros_like(word, dtype=torch.bool)
        for _ in range(length):
            logits, state = self.decode(word, encoded, state)
            word = logits[:, -1:].argmax(-1).masked_fill(over, PAD)
            said.append(word)
            over = over | (word == END)
            if bool(over.all()):
                break
        return torch.cat(said, 1) if said else source.new_zeros(len(source), 0)
