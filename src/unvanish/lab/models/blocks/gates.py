"""Initialisation of recurrences: gates open for the length of the sequences, matrices that keep the norm.

Notable:
- Chrono biases (Tallec and Ollivier 2018): the forget gate's are ln U(1, T - 1), an LSTM's input gate's their
  negatives, so each unit forgets over its own time between 1 and T steps. Without a length the gate's bias is
  1 (Jozefowicz et al. 2015). PyTorch adds two biases: one is set, the other is zero.
- Recurrent matrices are orthogonal, gate by gate (Saxe et al. 2014), or the identity for a ReLU (Le et al.
  2015).
- A tanh state with inputs at gain g settles at a power of g/sqrt 2, and each step back costs that many nats
  of gradient. Inputs at gain 3/T therefore cost about 2 nats over T steps, for any T.
- `he` and `xavier` apply to the input weights; the recurrence stays orthogonal, the gate's bias 1 (as in
  Keras).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin

GATES = {"RNN": ("h",), "RNNCell": ("h",), "LSTM": ("i", "f", "g", "o"), "LSTMCell": ("i", "f", "g", "o"),
         "GRU": ("r", "z", "n"), "GRUCell": ("r", "z", "n")}  # fmt: skip
KEPT = 3.0  # gain of a plain RNN's inputs, times the steps


def chrono(units: int, length: int | None) -> Tensor:
    """Biases of gates that keep, (units,): ln U(1, length - 1), or 1 if no length is known."""
    if length is None or length < 3:
        return torch.ones(units)
    return torch.log(1 + torch.rand(units) * (length - 2))


@torch.no_grad()
def open_gates(module: nn.RNNBase | nn.RNNCellBase, begin: Begin, length: int | None) -> None:
    """Initialise a recurrent layer or cell of PyTorch for sequences of `length` steps."""
    gates = GATES[type(module).__name__]
    relu = getattr(module, "nonlinearity", "") == "relu"
    steps = length if begin.safe and length is not None and length > 2 else None
    for name, p in module.named_parameters():
        if name.startswith("weight_hh"):
            for block in torch.split(p, int(module.hidden_size)):
                nn.init.eye_(block) if relu else nn.init.orthogonal_(block)
        elif name.startswith("weight"):
            small = min(1.0, KEPT / steps) if steps and gates == ("h",) else 1.0
            for block in torch.split(p, int(module.hidden_size)):
                _draw(block, begin.method, small)
        else:
            p.zero_()
    for name, p in module.named_parameters():
        if name.startswith("bias_ih"):
            _biases(p, gates, int(module.hidden_size), steps)


def _draw(block: Tensor, method: str, gain: float) -> None:
    if method == "xavier":
        nn.init.xavier_uniform_(block, gain)
    else:  # gates and states saturate: unit power in, unit power out, also for `he`
        nn.init.normal_(block, std=gain / math.sqrt(block.shape[1]))


def _biases(bias: Tensor, gates: tuple[str, ...], size: int, length: int | None) -> None:
    kept = chrono(size, length).to(bias)
    for gate, value in zip(gates, torch.split(bias, size), strict=True):
        if gate == "f" or gate == "z":
            value.copy_(kept)
        elif gate == "i" and length is not None:
            value.copy_(-kept)
