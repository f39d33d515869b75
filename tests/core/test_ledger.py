"""The ledger adds up, splits, gathers and survives gradients that are zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unvanish.core.ledger import DECADE, Ledger, Row, ledger
from unvanish.core.trace import STATISTICS, Axis, Site, Trace

LOG = st.floats(-800, 800)
PATHS = st.sampled_from(["a", "a.b", "a.b.c", "a.d", "e", "e.f", "g.h.i", ""])


def chain(logs: list[float], paths: list[str], **columns: list[float]) -> Trace:
    """A trace whose sites are one chain of cuts with these ln ||gradient||."""
    values = np.full((1, len(logs), len(STATISTICS)), math.nan)
    names = list(STATISTICS)
    values[0, :, names.index("backward_log")] = logs
    for name, column in columns.items():
        values[0, :, names.index(name)] = column
    sites = tuple(Site(path, "linear", facts={"simple": True}) for path in paths)
    return Trace(sites, values, (Axis("input", "depth", tuple(range(len(logs)))),))


@given(st.lists(st.tuples(LOG, PATHS, st.floats(-5, 5)), min_size=2, max_size=30))
def test_it_adds_up_at_every_level(cuts: list[tuple[float, str, float]]) -> None:
    logs, paths, weights = (list(column) for column in zip(*cuts, strict=True))
    book = ledger(chain(logs, paths, weight_log=weights))
    assert book is not None
    assert book.total == pytest.approx((logs[-1] - logs[0]) / DECADE, abs=1e-9)
    stack = list(book.rows)
    while stack:
        row = stack.pop()
        stack += row.children
        if row.children:
            assert math.fsum(c.decades for c in row.children) == pytest.approx(row.decades, abs=1e-9)
            assert row.children[-1].below == row.below
        assert math.fsum(row.parts.values()) == pytest.approx(row.decades, abs=1e-9)
    assert len(list(book.leaves())) == len(logs) - 1
    assert book.rows[-1].below == pytest.approx(book.total, abs=1e-9)


def test_neighbours_of_one_block_are_gathered() -> None:
    book = ledger(chain([0.0, -1.0, -2.0, -4.0], ["head", "body.0", "body.1", "input"]))
    assert book is not None
    assert [row.path for row in book.rows] == ["head", "body"]
    assert [row.path for row in book.rows[1].children] == ["body.0", "body.1"]


def test_a_layer_is_split_into_weights_and_alignment() -> None:
    book = ledger(chain([0.0, -2.0], ["a", "input"], weight_log=[-1.5, math.nan]))
    assert book is not None
    assert book.rows[0].parts == pytest.approx({"weights": -1.5 / DECADE, "alignment": -0.5 / DECADE})


def test_exact_zeros_end_the_account() -> None:
    book = ledger(chain([0.0, -math.inf, -math.inf], ["a", "b", "input"]))
    assert book is not None
    assert [row.decades for row in book.rows] == [-math.inf, 0.0] and book.total == -math.inf


def test_no_axis_no_ledger() -> None:
    assert ledger(Trace((), np.zeros((1, 0, len(STATISTICS))))) is None


@pytest.mark.parametrize(
    ("decades", "total"),
    [
        ([1.7e308, 1.7e308], math.inf),
        ([-1.7e308] * 3, -math.inf),
        ([1.7e308, 1.7e308, -1.7e308], 1.7e308),  # only on the way beyond the largest float
        ([math.inf, 1.0], math.inf),
    ],
)
def test_a_sum_beyond_the_largest_float_is_infinite(decades: list[float], total: float) -> None:
    assert Ledger("input", tuple(Row("a", "linear", d) for d in decades)).total == total


def test_parts_beyond_the_largest_float_are_infinite() -> None:
    book = ledger(chain([0.0] * 4, ["body.a", "body.b", "body.c", "input"], weight_log=[1.7e308] * 4))
    assert book is not None and book.total == 0.0
    assert book.rows[0].parts == {"weights": math.inf, "alignment": -math.inf}
