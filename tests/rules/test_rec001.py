"""REC001 on gradients over time written by hand: what is lost, of what cell, and what is forgiven."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rec001_vanishing_through_time as rec001
from unvanish.rules import rule

NAMES = list(STATISTICS)
STEPS = 11


def build_trace(
    recurrences: Mapping[str, float], kind: str = "rnn_tanh", steps: int = STEPS, **facts: Any
) -> Trace:
    """Recurrences whose gradient changes by so many nats from the last step to the first."""
    sites, states = [], []
    for name, ratio in recurrences.items():
        for t in range(steps):
            sites.append(Site.step(name, kind, t, {"of": name, "step": t, "steps": steps}))
            back = steps - 1 - t
            states.append(
                ratio * back / (steps - 1) if math.isfinite(ratio) else -math.inf if back > 1 else 0.0
            )
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    values[0, :, NAMES.index("state_log")] = states
    return Trace(tuple(sites), values, facts=facts)  # type: ignore[arg-type]


def test_a_fading_gradient_is_reported_with_its_numbers() -> None:
    (found,) = rule("REC001").check(build_trace({"a": -5.5, "b": -6.0, "c": -4.0}))
    assert (found.severity, found.direction, found.sites) == ("warning", "vanishing", ("b", "a"))
    assert "b loses 2.6 decades over 11 steps" in found.cause  # 6 / ln 10
    assert "keeps 0.55 a step, a horizon of 5 steps" in found.cause  # exp(-0.6), 3 / 0.6
    ratio, kept, horizon = found.evidence
    assert ratio.value == pytest.approx(-6.0) and (ratio.limit, ratio.unit) == ("> -5", "nats")
    assert kept.value == pytest.approx(math.exp(-0.6)) and kept.limit == f"> {math.exp(-5 / 11):.3f}"
    assert horizon.value == pytest.approx(5.0) and (horizon.limit, horizon.unit) == (">= 11", "steps")
    assert {e.site for e in found.evidence} == {"b"}
    assert found.weight == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("ratio", "severity"),
    [(-4.99, None), (-5.01, "warning"), (-5.99, "warning"), (-6.01, "error"), (7.0, None)],
)
def test_it_fires_just_beyond_its_limits(ratio: float, severity: str | None) -> None:
    found = list(rec001.check(build_trace({"a": ratio})))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_its_limit_can_be_set() -> None:
    assert not list(rec001.check(build_trace({"a": -5.0}), limit=5.1))
    (found,) = rec001.check(build_trace({"a": -5.0}), limit=2.4)
    assert found.severity == "error" and found.evidence[0].limit == "> -2.4"


def test_a_gradient_that_is_gone_has_a_finite_size() -> None:
    (found,) = rec001.check(build_trace({"a": -9.0, "b": -math.inf}))
    assert found.severity == "error" and found.sites == ("b", "a")
    assert "loses all of it" in found.cause and found.size == 1000
    assert [e.value for e in found.evidence] == [-1000, 0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "cures"),
    [
        ("lstm", ["chrono-bias", "attention"]),
        ("gru", ["chrono-bias", "attention"]),
        ("rnn_tanh", ["orthogonal-recurrence", "replace-cell", "attention"]),
    ],
)
def test_the_remedy_is_that_of_the_cell(kind: str, cures: list[str]) -> None:
    (found,) = rec001.check(build_trace({"a": -5.5}, kind))
    assert [r.cure for r in found.remedies] == cures
    assert all(r.targets == ("a",) for r in found.remedies)
    assert found.remedies[-1].safety == "advice"
    wanted = {"chrono-bias": {"steps": STEPS}, "replace-cell": {"to": "lstm"}}
    assert all(r.parameters == wanted.get(r.cure, {}) for r in found.remedies)


def test_twelve_recurrences_are_named_at_most() -> None:
    (found,) = rec001.check(build_trace({f"r{k}": -6.0 - 0.1 * k for k in range(14)}))
    assert found.sites == tuple(f"r{k}" for k in range(13, 1, -1))


def test_a_detached_cell_is_noted_with_and_without_a_reading() -> None:
    severed = {"cell": (9, 9, "net", "net.py:3"), "other": (4, 4, "", "")}
    for trace in (build_trace({}, severed=severed), build_trace({"a": 0.0}, severed=severed)):
        first, second = rec001.check(trace)
        assert (first.severity, first.direction, first.sites) == ("note", "blocked", ("cell",))
        assert "one step of 9" in first.cause and first.size == 9
        assert (first.evidence[0].value, first.evidence[0].unit) == (1, "of 9")
        assert [r.targets for r in (*first.remedies, *second.remedies)] == [("net",), ("(model)",)]
    both = list(rec001.check(build_trace({"a": -5.5}, severed=severed)))
    assert [f.severity for f in both] == ["warning", "note", "note"]
    with pytest.raises(NotApplicable):
        rec001.check(build_trace({}))


def test_a_detached_cell_whose_last_step_alone_is_read_is_a_warning() -> None:
    (found,) = rec001.check(build_trace({}, severed={"cell": (9, 1, "net", "")}))
    assert found.severity == "warning"


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("steps", "kept", "severity"),
    [(20, 0.51, "note"), (21, 0.51, "warning"), (200, 0.6, "warning"), (20, 0.49, "error")],
)
def test_a_gated_cell_at_its_usual_start_is_forgiven(
    kind: str, steps: int, kept: float, severity: str
) -> None:
    (found,) = rec001.check(build_trace({"a": (steps - 1) * math.log(kept)}, kind, steps))
    assert found.severity == severity
    assert ("only if early steps matter" in found.cause) == (kept > 0.5)


def build_history(loss: np.ndarray, norm_log: float = 0.0) -> dict[str, Any]:
    return {"live": True, "history": {"loss": loss, "norm_log": np.full(len(loss), norm_log)}}


def test_in_a_watched_run_it_is_a_note_while_the_loss_falls() -> None:
    falling, flat = np.linspace(2.0, 1.0, 60), np.ones(60)
    for loss, severity in ((falling, "note"), (flat, "error")):
        (found,) = rec001.check(build_trace({"a": -7.0}, **build_history(loss)))
        assert found.severity == severity
    (found,) = rec001.check(build_trace({"a": -7.0}, **{**build_history(falling), "live": False}))
    assert found.severity == "error"


def test_once_the_run_has_converged_only_detached_cells_are_noted() -> None:
    facts = build_history(np.geomspace(1.0, 1e-3, 60))
    assert list(rec001.check(build_trace({"a": -7.0}, **facts))) == []
    (note,) = rec001.check(build_trace({"a": -7.0}, severed={"cell": (9, 9, "", "")}, **facts))
    assert note.severity == "note" and note.sites == ("cell",)


def test_it_can_judge_a_watched_run() -> None:
    assert rule("REC001").live


class Loop(nn.Module):
    """A tanh cell in a loop of its own, read at its end."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 32)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        out: Tensor = self.head(h)
        return out


class Read(nn.Module):
    """A fused recurrence, read at its end."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.core, self.head = nn.RNN(8, 32, batch_first=True, **more), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.core(x)[0][:, -1])
        return out


def build_orthogonal() -> nn.Module:
    net = Read()
    nn.init.orthogonal_(net.core.weight_hh_l0)
    return net


@pytest.mark.parametrize(
    ("build", "steps"),
    [
        (Read, 6),
        (Read, 7),
        (lambda: Read(num_layers=2), 6),
        (lambda: Read(nonlinearity="relu"), 5),
        (lambda: Loop(nn.RNNCell(8, 32)), 7),
        (build_orthogonal, 12),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_plain_cell_over_the_few_steps_that_it_learns_is_left_alone(
    build: Any, steps: int, seed: int
) -> None:
    torch.manual_seed(seed)
    batch = torch.randn(32, steps, 8), torch.randint(0, 4, (32,))
    found = unvanish.check(build(), batch, nn.CrossEntropyLoss(), select=["REC001"], confirm=False)
    assert found.codes("note") == ()


@pytest.mark.parametrize(("build", "steps"), [(Read, 20), (lambda: Loop(nn.RNNCell(8, 32)), 20)])
def test_a_plain_cell_over_more_steps_is_found(build: Any, steps: int) -> None:
    torch.manual_seed(0)
    batch = torch.randn(32, steps, 8), torch.randint(0, 4, (32,))
    found = unvanish.check(build(), batch, nn.CrossEntropyLoss(), select=["REC001"], confirm=False)
    assert found.codes("error") == ("REC001",)
