"""The interface of translators: encode a source once, then decode the most likely next word repeatedly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.tokens import BEGIN, END, PAD


@dataclass(frozen=True)
class Encoded:
    """An encoded source: memory (B, S, width), its real positions (B, S), the decoder's first state."""

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
        """Logits (B, T, V) for the word after each of `target` (B, T), and the state to continue from."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of every next word, given the right words before it."""
        encoded = self.encode(source)
        return self.decode(target, encoded, encoded.state)[0]

    @torch.no_grad()
    def translate(self, source: Tensor, length: int = 50) -> Tensor:
        """The likeliest word at each step, (B, at most `length`); padding after a sentence's end."""
        encoded = self.encode(source)
        word, state, words = source.new_full((len(source), 1), BEGIN), encoded.state, []
        over = torch.zeros_like(word, dtype=torch.bool)
        for _ in range(length):
            logits, state = self.decode(word, encoded, state)
            word = logits[:, -1:].argmax(-1).masked_fill(over, PAD)
            words.append(word)
            over = over | (word == END)
            if bool(over.all()):
                break
        return torch.cat(words, 1) if words else source.new_zeros(len(source), 0)


NO_EXAMPLE = (Translator,)  # abstract
