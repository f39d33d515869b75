"""States cut at each step: however they are cut, whatever the step is, and what looks like one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(16, 8, 6, generator=G), torch.randint(0, 4, (16,), generator=G)
Cut = Callable[[Tensor], Tensor]
CUTS: dict[str, Cut] = {
    "detach": lambda h: h.detach(),
    "data": lambda h: h.data,
    "copied": lambda h: h.clone().detach(),
    "numpy": lambda h: torch.from_numpy(h.detach().numpy()),
    "array": lambda h: torch.as_tensor(np.array(h.detach().numpy())),
    "list": lambda h: torch.tensor(h.tolist()),
    "leaf": lambda h: h.detach().requires_grad_(),
    "variable": lambda h: torch.autograd.Variable(h.data),  # type: ignore[no-untyped-call]
    "new": lambda h: h.new_tensor(h.detach()),
}


class Steps(nn.Module):
    """A net over the steps whose state is cut after each of them, and its read-out."""

    def __init__(self, step: nn.Module, cut: Cut, every: int = 1, whole: bool = False) -> None:
        super().__init__()
        self.step, self.head = step, nn.Linear(12, 4)
        self.cut, self.every, self.whole = cut, every, whole

    def advance(self, x: Tensor, h: Tensor) -> Tensor:
        made: Tensor = torch.tanh(self.step(torch.cat([x, h], 1)))
        return made

    def forward(self, x: Tensor) -> Tensor:
        h, states = x.new_zeros(len(x), 12), []
        for t in range(x.shape[1]):
            h = self.advance(x[:, t], h)
            states.append(h)
            if t % self.every == self.every - 1 and t < x.shape[1] - 1:
                h = self.cut(h)
        out: Tensor = self.head(torch.stack(states).mean(0) if self.whole else states[-1])
        return out


class Fused(Steps):
    """The same by a fused layer that is given one step at a time."""

    def advance(self, x: Tensor, h: Tensor) -> Tensor:
        made: Tensor = self.step(x[None], h[None])[1][0]
        return made


def judge(model: nn.Module) -> list[Finding]:
    found = unvanish.check(model, (X, Y), nn.CrossEntropyLoss(), confirm=False, select=["REC001"])
    return [f for f in found.findings if "leaves the graph" in f.cause]


def build(cut: Cut, kind: Any = Steps, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    step = nn.GRU(6, 12) if kind is Fused else nn.Linear(18, 12)
    model: nn.Module = kind(step, cut, **options)
    return model


@pytest.mark.parametrize("kind", [Steps, Fused])
@pytest.mark.parametrize("name", CUTS)
def test_a_state_cut_at_each_step_is_a_warning_with_its_line(kind: Any, name: str) -> None:
    (found,) = judge(build(CUTS[name], kind))
    assert found.severity == "warning"
    assert "one step of 8" in found.cause and "test_states.py:" in found.cause


def test_a_loss_at_every_step_makes_it_a_note() -> None:
    (found,) = judge(build(CUTS["detach"], whole=True))
    assert found.severity == "note"


def test_a_whole_state_and_a_window_are_left_alone() -> None:
    assert judge(build(lambda h: h)) == []
    assert judge(build(CUTS["detach"], every=2)) == []


class Logged(Steps):
    """Each state is kept for a log."""

    def advance(self, x: Tensor, h: Tensor) -> Tensor:
        self.kept = [*getattr(self, "kept", []), h.detach()]
        return super().advance(x, h)


class Refined(Steps):
    """An estimate is cut after each round, the hidden state beside it is not."""

    def forward(self, x: Tensor) -> Tensor:
        h, guess, guesses = torch.tanh(x[:, 0] @ x.new_ones(6, 12)), x.new_zeros(len(x), 6), []
        for _ in range(8):
            guess = guess.detach()
            h = self.advance(guess, h)
            guess = guess + h[:, :6]
            guesses.append(guess)
        out: Tensor = self.head(torch.cat([guesses[-1], guesses[-2]], 1))
        return out


class Crops(Steps):
    """Targets of several crops, each by itself."""

    def forward(self, x: Tensor) -> Tensor:
        zero = x.new_zeros(len(x), 12)
        targets = [self.advance(x[:, t], zero).detach() for t in range(7)]
        out: Tensor = self.head(self.advance(x[:, 7], zero) - torch.stack(targets).mean(0))
        return out


class Settled(Steps):
    """An iteration to a fixed point, whose last round alone learns."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 12)
        with torch.no_grad():
            for _ in range(8):
                h = self.advance(x[:, 0], h)
        out: Tensor = self.head(self.advance(x[:, 0], h))
        return out


@pytest.mark.parametrize("kind", [Logged, Refined, Crops, Settled])
def test_what_is_meant_is_left_alone(kind: Any) -> None:
    assert judge(build(lambda h: h, kind)) == []


def test_a_cell_that_ran_without_gradients_up_to_its_last_step_is_a_warning() -> None:
    class Blind(nn.Module):
        """Only the last step has a graph."""

        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(6, 12), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 12)
            with torch.no_grad():
                for t in range(7):
                    h = self.cell(x[:, t], h)
            out: Tensor = self.head(self.cell(x[:, 7], h))
            return out

    (found,) = judge(Blind())
    assert found.severity == "warning" and "the state of cell" in found.cause
