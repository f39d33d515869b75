"""The original transformer: an encoder and a decoder that attends to it (Vaswani et al. 2017).

Notable:
- By default pre-norm with a last norm on either side; `place: post` is the original order, `deepnorm` its
  version for great depth, with separate constants for encoder and decoder (Wang et al. 2022).
- The output layer is tied to the target's embedding (Press and Wolf 2017).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unvanish.lab.models.blocks._example import FEW_IDS, IDS, Example
from unvanish.lab.models.blocks.embedding import Embedding
from unvanish.lab.models.blocks.language_head import LanguageHead
from unvanish.lab.models.blocks.masks import valid
from unvanish.lab.models.blocks.transformer import TransformerBlock, deepnorm
from unvanish.lab.models.blocks.translator import Encoded, Translator


class TransformerTranslator(Translator):
    """Token ids (source (B, S), target (B, T)) to logits (B, T, target_vocabulary)."""

    SCALED = ("width", "hidden")

    def __init__(
        self,
        vocabulary: int,
        target_vocabulary: int,
        width: int = 256,
        heads: int = 4,
        hidden: int | None = None,
        layers: int = 3,
        place: str = "pre",
        dropout: float = 0.0,
        activation: str = "relu",
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.source = Embedding(vocabulary, width, "sinusoidal", scale=True, dropout=dropout)
        self.target = Embedding(target_vocabulary, width, "sinusoidal", scale=True, dropout=dropout)
        of_encoder, of_decoder = deepnorm(layers, layers) if place == "deepnorm" else (None, None)
        given: dict[str, Any] = {
            "place": place,
            "dropout": dropout,
            "activation": activation,
            "qk_norm": qk_norm,
        }
        self.encoder = nn.ModuleList(
            TransformerBlock(width, heads, hidden, depth=2 * layers, scales=of_encoder, **given)
            for _ in range(layers)
        )
        self.decoder = nn.ModuleList(
            TransformerBlock(
                width, heads, hidden, depth=3 * layers, cross=True, causal=True, scales=of_decoder, **given
            )
            for _ in range(layers)
        )
        self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(width) if place == "pre" else nn.Identity() for _ in range(2)
        )
        self.head = LanguageHead(width, target_vocabulary)
        self.head.tie(self.target)

    def encode(self, source: Tensor) -> Encoded:
        """Read the source; the state is the target so far, which is empty."""
        x, mask = self.source(source), valid(source)
        for block in self.encoder:
            x = block(x, mask)
        return Encoded(self.encoder_norm(x), mask, source.new_zeros(source.shape[0], 0))

    def decode(self, target: Tensor, encoded: Encoded, state: Any) -> tuple[Tensor, Any]:
        """Logits after each word of `target`, which follows the words of the state."""
        words = torch.cat((state, target), 1)
        x = self.target(words)
        for block in self.decoder:
            x = block(x, None, encoded.memory, encoded.mask)
        return self.head(self.decoder_norm(x[:, state.shape[1] :])), words


EXAMPLES = {
    TransformerTranslator: Example(
        {"vocabulary": 9, "target_vocabulary": 7, "width": 8, "heads": 2, "layers": 1},
        [IDS, FEW_IDS],
        (4, 5, 7),
    ),
}
