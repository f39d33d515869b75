"""Time axes found in fused layers and in loops, the same gradient either way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core.trace import Trace
from unvanish.probes import record

STEPS = 12


class Fused(nn.Module):
    """A fused layer, read out at its end."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.core, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


class Loop(nn.Module):
    """The same, with a cell in a loop."""

    def __init__(self, kind: type[nn.RNNCellBase], fused: Fused) -> None:
        super().__init__()
        self.cell, self.head = kind(4, 6), fused.head
        for name, p in self.cell.named_parameters():
            p.data = getattr(fused.core, f"{name}_l0").data

    def forward(self, x: Tensor) -> Tensor:
        lstm = isinstance(self.cell, nn.LSTMCell)
        state = (x.new_zeros(len(x), 6),) * 2 if lstm else x.new_zeros(len(x), 6)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if lstm else state)


def profile(trace: Trace, statistic: str) -> np.ndarray:
    places = sorted(trace.where("step"), key=lambda i: trace.sites[i].facts["step"])
    return np.array([trace.value(i, statistic) for i in places])


@pytest.mark.parametrize(
    ("fused", "cell", "within"),
    [(nn.RNN, nn.RNNCell, 1e-3), (nn.GRU, nn.GRUCell, 1e-3), (nn.LSTM, nn.LSTMCell, 0.3)],
)
def test_a_loop_and_a_fused_layer_tell_the_same(
    fused: type[nn.RNNBase], cell: type[nn.RNNCellBase], within: float
) -> None:
    """A loop cannot tell what reaches an LSTM's c from what reaches it through h of the same step."""
    torch.manual_seed(0)
    one = Fused(fused)
    other = Loop(cell, one)
    batch = torch.randn(5, STEPS, 4), torch.randint(0, 2, (5,))
    a, b = (profile(record(m, batch, nn.CrossEntropyLoss()), "state_log") for m in (one, other))
    assert len(a) == len(b) == STEPS
    assert b == pytest.approx(a, abs=within)
    assert b[0] - b[-1] == pytest.approx(a[0] - a[-1], abs=within)


def test_the_states_gradient_is_autograds() -> None:
    torch.manual_seed(0)
    net = Fused(nn.RNN)
    x = torch.randn(5, STEPS, 4)
    core, states, h = net.core, [], torch.zeros(5, 6)
    for step in x.unbind(1):
        h = torch.tanh(
            step @ core.weight_ih_l0.T + core.bias_ih_l0 + h @ core.weight_hh_l0.T + core.bias_hh_l0
        )
        states.append(h)
    gradients = torch.autograd.grad(net.head(h).square().sum(), states)
    expected = [math.log(float(g.norm())) for g in gradients]
    trace = record(net, x, lambda o: o.square().sum())
    assert profile(trace, "state_log") == pytest.approx(np.array(expected), abs=1e-3)


def test_calls_that_do_not_depend_on_each_other_are_no_loop() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layer(step) for step in x.unbind(1)]).mean(0)

    assert not record(Shared(), torch.randn(5, STEPS, 4)).where("step")


def test_of_nested_bodies_the_outermost_counts() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(x + self.inner(h))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros_like(x[:, 0])
            for step in x.unbind(1):
                h = self.cell(step, h)
            return h

    trace = record(Net(), torch.randn(5, STEPS, 4))
    assert {trace.sites[i].facts["of"] for i in trace.where("step")} == {"cell"}


def test_a_packed_bidirectional_stack_has_a_profile_for_each_direction() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([12, 9, 6, 6, 5]))
            return nn.utils.rnn.pad_packed_sequence(self.core(packed)[0])[0]

    trace = record(Packed(), torch.randn(STEPS, 5, 4))
    names = {trace.sites[i].facts["of"] for i in trace.where("step")}
    assert names == {"core.l0", "core.l0_reverse", "core.l1", "core.l1_reverse"}
    assert np.isfinite(profile(trace, "state_log")).all()


def test_an_output_that_was_written_over_is_not_taken_for_the_states() -> None:
    class Over(Fused):
        def forward(self, x: Tensor) -> Tensor:
            y = self.core(x)[0]
            return self.head((y.mul_(1e-3) if self.over else y * 1e-3)[:, -1])

    torch.manual_seed(0)
    model, x = Over(nn.GRU), torch.randn(8, STEPS, 4)
    logs = []
    for model.over in (True, False):
        logs.append(profile(record(model, x), "state_log"))
    np.testing.assert_allclose(logs[0], logs[1], atol=1e-6)


class Looped(nn.Module):
    """A cell over the steps, its state detached every so many of them (0: never), and perhaps logged."""

    def __init__(self, kind: type[nn.RNNCellBase], every: int, logs: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = kind(6, 12), nn.Linear(12, 4)  # type: ignore[call-arg]
        self.every, self.logs = every, logs

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        seen = []
        for t in range(x.shape[1]):
            if state is not None and self.every and t % self.every == 0:
                pair = isinstance(state, tuple)
                state = tuple(s.detach() for s in state) if pair else state.detach()
            state = self.cell(x[:, t], state)
            h = state[0] if isinstance(state, tuple) else state
            if self.logs:
                seen.append(h.detach())
        return self.head(h)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize(("every", "logs", "noted"), [(1, False, True), (5, False, False), (0, True, False)])
def test_a_state_that_is_detached_at_every_step_is_noted(
    kind: type[nn.RNNCellBase], every: int, logs: bool, noted: bool
) -> None:
    batch = torch.randn(8, 20, 6), torch.randint(0, 4, (8,))
    found = unvanish.check(Looped(kind, every, logs), batch, nn.CrossEntropyLoss())
    told = [f for f in found.findings if f.code == "REC001" and "leaves the graph" in f.cause]
    assert bool(told) == noted
    if noted:  # the loss reads the last step alone
        assert not found.healthy and "goes back one step of 20" in told[0].cause


class Handmade(nn.Module):
    """A cell written out in the forward, over the steps; `way`: what is done with its state between them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.again, self.head = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.way = way

    def forward(self, x: Tensor) -> Any:
        h, every = x.new_zeros(len(x), 12), []
        for t in range(x.shape[1]):
            if self.way == "chunks" and t % 4 == 0:
                h = h.detach()
            if self.way in ("each", "all steps"):
                h = h.detach()
            if self.way == "input":  # what is fed back is cut, the state is not
                h = torch.tanh(self.enter(x[:, t] + h[:, :6].detach()) + self.again(h))
                continue
            if self.way == "last step" and t < x.shape[1] - 1:  # the gradient of a fixed point's last step
                with torch.no_grad():
                    h = torch.tanh(self.enter(x[:, t]) + self.again(h))
                continue
            h = torch.tanh(self.enter(x[:, t]) + self.again(h))
            every.append(h)
        return self.head(torch.stack(every).mean(0) if self.way == "all steps" else h)


class OwnCell(nn.Module):
    """A gated cell of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new = nn.Linear(18, 12), nn.Linear(18, 12)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        both = torch.cat([x, h], -1)
        z = torch.sigmoid(self.gate(both))
        return z * h + (1 - z) * torch.tanh(self.new(both))


class Wrapped(nn.Module):
    """Such a cell in a loop that detaches its state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = OwnCell(), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 12)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h.detach())
        out: Tensor = self.head(h)
        return out


@pytest.mark.parametrize(
    ("net", "severity"),
    [
        (lambda: Handmade("each"), "warning"),
        (Wrapped, "warning"),
        (lambda: Handmade("all steps"), "note"),
        (lambda: Handmade("never"), ""),
        (lambda: Handmade("chunks"), ""),
        (lambda: Handmade("input"), ""),
        (lambda: Handmade("last step"), ""),
    ],
)
def test_the_state_of_a_cell_of_one_s_own_is_followed_too(net: Any, severity: str) -> None:
    batch = torch.randn(8, 12, 6), torch.randint(0, 4, (8,))
    found = unvanish.check(net(), batch, nn.CrossEntropyLoss(), select=["REC001"], confirm=False)
    told = [f for f in found.findings if "leaves the graph" in f.cause]
    assert [f.severity for f in told] == ([severity] if severity else [])
