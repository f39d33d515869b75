"""Loops as people write them: each fault is named first, and nothing is said of what is as it should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.clinic.watch.healthy_loops import LOOPS
from tests.clinic.watch.sick_states import SICK

import unvanish
from unvanish.clinic.watch import Watch
from unvanish.core.diagnosis import at_least


class Opened:
    """Opens watches, and keeps the last."""

    def __init__(self) -> None:
        self.watch: Watch | None = None

    def __call__(self, model: Any, optimizer: Any, loss: Any, **options: Any) -> Watch:
        self.watch = unvanish.watch(model, optimizer, loss, on_finding="silent", **options)
        return self.watch

    @property
    def loud(self) -> list[str]:
        assert self.watch is not None and not self.watch.failure
        return [f.code for f in at_least(self.watch.findings, "warning")]


@pytest.mark.parametrize("name", LOOPS)
def test_nothing_is_said_of_a_healthy_loop(name: str) -> None:
    torch.manual_seed(0)
    opened = Opened()
    LOOPS[name](opened)
    assert opened.loud == []


@pytest.mark.parametrize("name", SICK)
def test_a_fault_of_a_loop_is_named_first_and_its_twin_is_left_alone(name: str) -> None:
    codes, run = SICK[name]
    for sick in (True, False):
        torch.manual_seed(0)
        opened = Opened()
        run(opened, sick)
        assert (opened.loud[0] in codes) if sick else opened.loud == []
