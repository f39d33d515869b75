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


class Inside(Names):
    """Wants to see what compositions call."""

    SEES_INSIDE = True


class Own(Tensor):
    """A tensor class of the program that takes `normalize` over."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.normalize:
            return "mine"
        return super().__torch_function__(func, types, args, kwargs or {})


def run(x: Tensor, mode: type[Names] = Inside) -> list[str]:
    with mode() as names:
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


def test_overrides_of_the_program_are_found_as_ever() -> None:
    x, own = torch.ones(2, 3), torch.ones(2, 3).as_subclass(Own)
    whole = run(x, Names)
    with Unfolded():
        assert run(x, Names) == whole and "normalize" in whole
        assert F.normalize(own) == "mine"
        with Inside():
            assert F.normalize(own) == "mine"
        assert "normalize" not in run(torch.nn.Parameter(x))


def test_threads_may_close_it_in_any_order() -> None:
    before = checks()
    a, b = Unfolded(), Unfolded()
    a.open()
    b.open()
    a.close()
    assert checks() != before
    b.close()
    b.close()
    assert checks() == before
