"""RNN, LSTM and GRU on PyTorch's fused layers (Elman 1990; Hochreiter and Schmidhuber 1997; Cho et al.
2014).

Notable:
- They start with open gates and recurrences that keep the norm (see `gates`); with PyTorch's own
  initialisation (`init: torch`) an LSTM loses half of the gradient every 1.7 steps.
- Padding stands at the end. A single direction never sees it, so sequences are packed only for two directions
  or if the last state is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import SERIES, Example
from unvanish.lab.models.blocks.gates import open_gates
from unvanish.lab.models.blocks.masks import lengths

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

CELLS: dict[str, tuple[Callable[..., nn.RNNBase], dict[str, str]]] = {
    "rnn": (nn.RNN, {"nonlinearity": "tanh"}),
    "relu-rnn": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
}


class Recurrent(nn.Module):
    """Layers of a recurrent cell, (B, T, width_in) to (B, T, width), twice the width in two directions.

    `length`: how many steps the gates should reach back.
    """

    SCALED = ("width",)

    def __init__(
        self,
        width_in: int,
        width: int = 128,
        cell: str = "lstm",
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        length: int | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"no cell {cell!r}{suggest(cell, CELLS)}; there are {', '.join(CELLS)}")
        kind, settings = CELLS[cell]
        more: dict[str, Any] = {**settings, "dropout": dropout if layers > 1 else 0.0}
        more |= {"num_layers": layers, "batch_first": True, "bidirectional": bidirectional}
        self.core = kind(width_in, width, **more)
        self.length = length
        self.packs = True  # False: without packed sequences, which exporters do not know

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The states (B, T, width); those at padding are meaningless, and do not affect others."""
        return self.run(x, mask if self.core.bidirectional else None)[0]

    def run(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """The states (B, T, width), and the last ones in PyTorch's form, at each sequence's real end."""
        if mask is None or x.is_meta:
            found: tuple[Tensor, Any] = self.core(x, state)
            return found
        if not self.packs:
            return self._run_apart(x, mask)
        packed = pack_padded_sequence(x, lengths(mask).cpu(), batch_first=True, enforce_sorted=False)
        outputs, last = self.core(packed, state)
        return pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])[0], last

    def _run_apart(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        """As `run`, each layer and direction by itself: the reverse one reads sequences turned in place.

        ValueError for an LSTM of one direction, whose cells at the sequences' ends only packing tells.
        """
        core, ends = self.core, lengths(mask)
        gated = isinstance(core, nn.LSTM)
        if gated and not core.bidirectional:
            raise ValueError("an LSTM that hands over its last cells is not exported; a GRU is, or attention")
        each = torch.arange(x.shape[0], device=x.device)
        states = []
        for layer in range(core.num_layers):
            made = []
            for back in range(1 + core.bidirectional):
                names = [
                    f"{part}_l{layer}{'_reverse' * back}"
                    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                ]
                weights = [getattr(core, name) for name in names]
                output = self._run_one(turn_in_place(x, ends) if back else x, weights)
                states.append(output[each, ends - 1])
                made.append(turn_in_place(output, ends) if back else output)
            x = torch.cat(made, -1)
        hidden = torch.stack(states)
        return x, (hidden, torch.zeros_like(hidden)) if gated else hidden

    def _run_one(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        """The states (B, T, width) of one layer in one direction."""
        zero = x.new_zeros(1, x.shape[0], self.core.hidden_size)
        more = (weights, True, 1, 0.0, False, False, True)
        if isinstance(self.core, nn.LSTM):
            return torch.lstm(x, (zero, zero), *more)[0]
        plain: Any = torch.rnn_relu if getattr(self.core, "nonlinearity", "") == "relu" else torch.rnn_tanh
        kind: Any = torch.gru if isinstance(self.core, nn.GRU) else plain
        output: Tensor = kind(x, zero, *more)[0]
        return output

    def initialise(self, begin: Begin) -> None:
        """Open the gates for `length` steps."""
        open_gates(self.core, begin, begin.length if self.length is None else self.length)


def reversed_in_place(ids: Tensor) -> Tensor:
    """Token ids (B, T), each sequence reversed, with its padding at the end (Sutskever et al. 2014)."""
    ends = lengths(ids)[:, None]
    steps = torch.arange(ids.shape[1], device=ids.device)[None]
    return ids.gather(1, (ends - 1 - steps).where(steps < ends, steps))


def turn_in_place(x: Tensor, ends: Tensor) -> Tensor:
    """Vectors (B, T, width), the first `ends` (B,) of each sequence in reverse order, the rest as it is."""
    steps = torch.arange(x.shape[1], device=x.device)[None]
    order = (ends[:, None] - 1 - steps).where(steps < ends[:, None], steps)
    return x[torch.arange(x.shape[0], device=x.device)[:, None], order]


EXAMPLES = {
    Recurrent: Example({"width": 6}, [SERIES], (4, 5, 6)),
}
