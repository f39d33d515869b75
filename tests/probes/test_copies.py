"""Models copied: the copy is what `copy.deepcopy` makes, and shares nothing with the model."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from unvanish.probes.copies import copy_model


class Own(nn.Module):
    """Tables of its own: shared, empty, filled, of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.again = self.inner
        self.cache: dict[str, torch.Tensor] = {}
        self.same = self.cache
        self.kept = OrderedDict(a=torch.ones(2))
        self.seen: set[int] = set()
        self.rows: list[dict[str, int]] = [{}]


def test_what_is_shared_stays_shared_within_the_copy() -> None:
    model = nn.Sequential(Own(), nn.BatchNorm1d(3))
    model[0].inner.register_forward_hook(lambda *_: None)
    made, usual = copy_model(model), copy.deepcopy(model)
    for a, b, c in zip(made.modules(), usual.modules(), model.modules(), strict=True):
        assert vars(a).keys() == vars(b).keys()
        for name, value in vars(a).items():
            assert type(value) is type(vars(b)[name]), name
            if isinstance(value, (dict, list, set)):
                assert value is not vars(c)[name], name
                assert len(value) == len(vars(b)[name]), name
    own = made[0]
    assert isinstance(own, Own)
    assert own.cache is own.same
    assert own.inner is own.again
    assert len(own.inner._forward_hooks) == 1


def test_the_copys_hooks_are_its_own() -> None:
    model = nn.Linear(2, 2)
    made = copy_model(model)
    made.register_forward_hook(lambda *_: None)
    assert not model._forward_hooks
    assert made.weight is not model.weight


def test_what_cannot_be_copied_raises_as_ever() -> None:
    model = nn.Linear(2, 2)
    model.gate = (n for n in range(3))  # type: ignore[assignment]
    with pytest.raises(TypeError, match="generator"):
        copy_model(model)
