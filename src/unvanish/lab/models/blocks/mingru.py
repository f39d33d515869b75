"""minGRU: a gated recurrence whose gates see only the input, so all steps are one scan (Feng et al. 2024).

Notable:
- h_t = (1 - z_t) h_(t-1) + z_t g(c_t), with z_t = sigmoid(W x_t) and candidates c_t = V x_t. A step's
  Jacobian is just 1 - z_t: no powers of a matrix, so nothing explodes.
- The scan runs on logarithms (Heinsen 2023): products of gates become sums, so a thousand steps do not
  underflow. It needs positive candidates, g(c) = c + 1/2 above zero, sigmoid(c) below.
- Its gates start open as those of the other cells, for 1 to T steps.
- A layer's gates do not see its own past, so it is meant to be stacked: the block puts it on a skip with a
  norm before it and a feed-forward part after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.lab.models.blocks._example import SERIES, Example
from unvanish.lab.models.blocks.gates import chrono
from unvanish.lab.models.blocks.norms import norm as norm_of
from unvanish.lab.models.blocks.transformer import Branch, FeedForward

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin


def positive(candidate: Tensor) -> Tensor:
    """g(c): c + 1/2 above zero, sigmoid(c) below; smooth enough, and positive."""
    return torch.where(candidate >= 0, candidate + 0.5, candidate.sigmoid())


def log_positive(candidate: Tensor) -> Tensor:
    """Ln of g(c), without underflow."""
    return torch.where(candidate >= 0, (F.relu(candidate) + 0.5).log(), -F.softplus(-candidate))


def scan(gate: Tensor, candidate: Tensor) -> Tensor:
    """All states (B, T, width) of h_t = (1 - sigmoid(gate)) h + sigmoid(gate) g(candidate) from h = 0."""
    kept = -F.softplus(gate).cumsum(1)  # ln of the share of the first state that is left
    added = -F.softplus(-gate) + log_positive(candidate) - kept
    return (kept + added.logcumsumexp(1)).exp()


def step(gate: Tensor, candidate: Tensor, state: Tensor) -> Tensor:
    """One step of the same recurrence, (B, width)."""
    z = gate.sigmoid()
    return (1 - z) * state + z * positive(candidate)


class MinGRU(nn.Module):
    """(B, T, width_in) to states (B, T, width); `length`: how many steps the gates should reach back."""

    SCALED = ("width",)

    def __init__(self, width_in: int, width: int = 128, length: int | None = None) -> None:
        super().__init__()
        self.gate, self.candidate = nn.Linear(width_in, width), nn.Linear(width_in, width)
        self.length = length

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The states; padding stands at the end, so a mask changes nothing."""
        return scan(self.gate(x), self.candidate(x))

    def initialise(self, begin: Begin) -> None:
        """Gates that keep the state for `length` steps."""
        length = begin.length if self.length is None else self.length
        begin.layer(self.gate)
        begin.layer(self.candidate)
        with torch.no_grad():
            self.gate.bias.copy_(-chrono(self.gate.out_features, length if begin.safe else None))


class MinGRUBlock(nn.Module):
    """A minGRU and a feed-forward part, each with a norm before it on a skip, (B, T, width) to itself."""

    BRANCHES = 2

    def __init__(
        self,
        width_in: int,
        hidden: int | None = None,
        depth: int = 2,
        dropout: float = 0.0,
        activation: str = "gelu",
        norm: str = "layer",
        length: int | None = None,
    ) -> None:
        super().__init__()
        self.mixer = Branch(Mixer(width_in, length), norm_of(norm, width_in, dims=1), "pre", 1.0, dropout)
        part = FeedForward(width_in, hidden, activation, dropout)
        self.feedforward = Branch(part, norm_of(norm, width_in, dims=1), "pre", 1.0, dropout)
        self.depth = max(1, depth)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The stream after one block."""
        return self.feedforward(self.mixer(x))  # type: ignore[no-any-return]

    def initialise(self, begin: Begin) -> None:
        """Initialise the branches, their ends scaled down for the depth."""
        end = self.depth**-0.5 if begin.safe else 1.0
        self.mixer.part.close(begin, end)
        self.feedforward.part.initialise(begin, end=end)


class Mixer(nn.Module):
    """A minGRU and the linear layer that maps its states back to the stream."""

    def __init__(self, width: int, length: int | None) -> None:
        super().__init__()
        self.core, self.out = MinGRU(width, width, length), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to itself."""
        return self.out(self.core(x))  # type: ignore[no-any-return]

    def close(self, begin: Begin, end: float) -> None:
        """Initialise the last layer, its weights times `end`."""
        begin.layer(self.out, factor=end)


EXAMPLES = {
    MinGRU: Example({"width": 6}, [SERIES], (4, 5, 6)),
    MinGRUBlock: Example({}, [SERIES], SERIES),
}
NO_EXAMPLE = (Mixer,)  # a part of the block
