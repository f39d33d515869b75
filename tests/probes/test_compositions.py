"""Compositions of `torch.nn.functional` are unfolded while it is open, also nested, and put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from unvanish.probes.compositions import CHECKS, Unfolded


class Names(TorchFunctionMode):
    """Notes the name of every function that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def run(x: Tensor) -> list[str]:
    with Names() as names:
        F.normalize(x)
    return names.seen


def checks() -> list[Any]:
    return [vars(F)[name] for name in CHECKS]


def test_the_operations_inside_a_composition_are_seen() -> None:
    x = torch.ones(2, 3)
    assert "normalize" in run(x)
    with Unfolded():
        assert "normalize" not in run(x)
        assert any("norm" in name for name in run(x))
    assert "normalize" in run(x)


def test_it_may_be_nested_and_ends_with_an_error() -> None:
    before = checks()
    with pytest.raises(ValueError, match="inside"), Unfolded():
        with Unfolded():
            assert checks() != before
        assert checks() != before
        raise ValueError("inside")
    assert checks() == before
