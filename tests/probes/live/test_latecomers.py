"""Numbers that come from a device some steps late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from unvanish.probes.live.latecomers import Latecomers


@dataclass
class Row:
    norm: Any
    loss: Any


@dataclass
class Event:
    here: bool = False

    def query(self) -> bool:
        return self.here


def test_numbers_are_taken_in_order_when_they_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    arrivals, events = Latecomers(), [Event(), Event(), Event()]
    rows = [
        Row(torch.tensor(0.0), torch.tensor(0.0)),
        Row(7.0, torch.tensor(0.0)),
        Row(torch.tensor(0.0), 3.0),
    ]
    for k, (row, event) in enumerate(zip(rows, events, strict=True)):
        sent = torch.tensor([k + 0.5, k + 0.25], dtype=torch.float64)
        arrivals.waiting.append((row, ("norm", "loss"), sent, event))
    assert arrivals.take() == []
    events[0].here = events[1].here = True
    assert arrivals.take() == rows[:2]
    assert rows[0] == Row(0.5, 0.25)
    assert rows[1] == Row(7.0, 1.25)  # a look had brought its norm
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    events[2].here = True
    assert arrivals.take() == []


def test_what_is_here_already_is_not_sent() -> None:
    arrivals = Latecomers()
    arrivals.send(Row(1.0, torch.tensor(2.0)), ("norm", "loss"))
    assert arrivals.take() == []
