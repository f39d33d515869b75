"""Translation by two recurrent nets: through one vector (Sutskever et al. 2014), or with attention.

Notable:
- Without attention the source is read backwards, so that its first words are near the first words of the
  target, and everything must pass the encoder's last state.
- With attention the encoder reads in both directions. Additive attention (Bahdanau et al. 2015) queries with
  the state before each step, so its decoder is a loop; multiplicative attention (Luong et al. 2015) queries
  with the state after it, so the decoder runs as one fused layer and all its steps query at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import FEW_IDS, IDS, Example
from unvanish.lab.models.blocks.alignment import Additive, Multiplicative
from unvanish.lab.models.blocks.embedding import Embedding
from unvanish.lab.models.blocks.gates import open_gates
from unvanish.lab.models.blocks.masks import valid
from unvanish.lab.models.blocks.recurrent import Recurrent, reversed_in_place
from unvanish.lab.models.blocks.translator import Encoded, Translator

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

NEAR = 1  # attention reaches every step, so the encoder's gates need not
ATTENTION = ("none", "bahdanau", "luong")
STEPS: dict[str, type[nn.RNNCellBase]] = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}


class RecurrentTranslator(Translator):
    """Token ids (source (B, S), target (B, T)) to logits (B, T, target_vocabulary).

    `length`: how many steps the gates should reach back. `packed`: the encoder stops at a sentence's end;
    otherwise it also reads the padding, a common mistake that moves its last state away from every word.
    """

    SCALED = ("width", "embedding")

    def __init__(
        self,
        vocabulary: int,
        target_vocabulary: int,
        width: int = 256,
        embedding: int | None = None,
        cell: str = "gru",
        attention: str = "none",
        dropout: float = 0.0,
        length: int | None = None,
        packed: bool = True,
    ) -> None:
        super().__init__()
        if attention not in ATTENTION:
            known = ", ".join(ATTENTION)
            raise ValueError(f"no attention {attention!r}{suggest(attention, ATTENTION)}; there are {known}")
        self.cell, self.attention, self.length, self.packed = cell, attention, length, packed
        inner, looks = embedding or width, attention != "none"
        self.source = Embedding(vocabulary, inner, dropout=dropout)
        self.target = Embedding(target_vocabulary, inner, dropout=dropout)
        self.encoder = Recurrent(inner, width, cell, bidirectional=looks, length=NEAR if looks else length)
        seen = 2 * width if looks else 0  # the memory's width
        self.bridge = nn.Linear(seen, width) if looks else None
        self.align: Additive | Multiplicative | None = None
        self.decoder: Recurrent | nn.RNNCellBase
        if attention == "bahdanau":
            self.align, self.decoder = Additive(width, seen, width), _cell(cell, inner + seen, width)
        else:
            self.align = Multiplicative(width, seen, width) if looks else None
            self.decoder = Recurrent(inner, width, cell, length=length)
        self.mixed = nn.Linear(width + seen, inner) if looks else None
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(inner if looks else width, target_vocabulary)

    def encode(self, source: Tensor) -> Encoded:
        """Read the source: states of both directions, or the last state of the reversed sentence."""
        ids = source if self.bridge is not None else reversed_in_place(source)
        memory, last = self.encoder.run(self.source(ids), ids if self.packed else None)
        if self.bridge is None:
            return Encoded(memory, valid(ids), last)
        hidden = last[0] if isinstance(last, tuple) else last
        first = self.bridge(torch.cat((hidden[0], hidden[1]), 1)).tanh()[None]  # (1, B, width)
        return Encoded(memory, valid(ids), (first, torch.zeros_like(first)) if self.cell == "lstm" else first)

    def decode(self, target: Tensor, encoded: Encoded, state: Any) -> tuple[Tensor, Any]:
        """Logits after each word of `target`, starting from a state."""
        x = self.target(target)
        if isinstance(self.align, Additive):
            return self._loop(x, encoded, state)
        assert isinstance(self.decoder, Recurrent)
        states, state = self.decoder.run(x, None, state)
        if self.align is not None:
            context = self.align(states, self.align.keys(encoded.memory), encoded.memory, encoded.mask)
            states = self._mix(states, context)
        return self.out(self.dropout(states)), state

    def _loop(self, x: Tensor, encoded: Encoded, state: Any) -> tuple[Tensor, Any]:
        assert isinstance(self.align, Additive) and isinstance(self.decoder, nn.RNNCellBase)
        pair = isinstance(state, tuple)
        state = tuple(s[0] for s in state) if pair else state[0]
        keys, states, contexts = self.align.keys(encoded.memory), [], []
        for word in x.unbind(1):
            query = state[0] if pair else state
            context = self.align(query[:, None], keys, encoded.memory, encoded.mask)[:, 0]
            state = self.decoder(torch.cat((word, context), 1), state)
            states.append(state[0] if pair else state)
            contexts.append(context)
        mixed = self._mix(torch.stack(states, 1), torch.stack(contexts, 1))
        return self.out(self.dropout(mixed)), tuple(s[None] for s in state) if pair else state[None]

    def _mix(self, states: Tensor, context: Tensor) -> Tensor:
        assert self.mixed is not None
        return self.mixed(torch.cat((states, context), -1)).tanh()  # type: ignore[no-any-return]

    def initialise(self, begin: Begin) -> None:
        """Open the loop's gates; the other parts have their own rules."""
        if isinstance(self.decoder, nn.RNNCellBase):
            open_gates(self.decoder, begin, begin.length if self.length is None else self.length)
        for layer in (self.bridge, self.mixed, self.out):
            if layer is not None:
                begin.layer(layer)


def _cell(name: str, width_in: int, width: int) -> nn.RNNCellBase:
    if name not in STEPS:
        raise ValueError(f"no cell {name!r} for a loop{suggest(name, STEPS)}; there are {', '.join(STEPS)}")
    return STEPS[name](width_in, width)  # type: ignore[call-arg]


EXAMPLES = {
    RecurrentTranslator: Example(
        {"vocabulary": 9, "target_vocabulary": 7, "width": 8}, [IDS, FEW_IDS], (4, 5, 7)
    ),
}
