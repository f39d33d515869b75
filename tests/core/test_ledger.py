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


# -- rows, parts and blocks by hand


def test_an_activation_is_split_into_its_slope_and_alignment() -> None:
    """<phi'^2> = 1/4: the root mean square slope is a half."""
    book = ledger(chain([0.0, -1.0], ["a", "input"], slope_sq=[0.25, math.nan]))
    assert book is not None
    assert book.rows[0].parts == pytest.approx(
        {"slope": math.log10(0.5), "alignment": -1 / DECADE - math.log10(0.5)}
    )


@pytest.mark.parametrize("slope", [0.0, math.nan])
def test_a_slope_of_zero_is_no_part(slope: float) -> None:
    book = ledger(chain([0.0, -1.0], ["a", "input"], slope_sq=[slope, math.nan]))
    assert book is not None and book.rows[0].parts == {}


@pytest.mark.parametrize("logs", [[0.0, -math.inf], [-math.inf, -math.inf], [-math.inf, 0.0]])
def test_a_gain_without_a_gradient_on_both_sides_has_no_parts(logs: list[float]) -> None:
    book = ledger(chain(logs, ["a", "input"], weight_log=[-1.0, -1.0]))
    assert book is not None and book.rows[0].parts == {}


def test_a_gradient_that_never_enters_leaves_an_empty_ledger() -> None:
    book = ledger(chain([-math.inf, -math.inf, -math.inf], ["a", "b", "input"]))
    assert book is not None and book.empty
    assert book.total == -math.inf and [row.below for row in book.rows] == [-math.inf] * 2


def test_rows_of_several_operations_bear_the_name_they_share() -> None:
    trace = chain([0.0, -1.0, -2.0], ["x", "y", "input"], weight_log=[-1.0] * 3)
    sites = (
        Site("x", "add", facts={"simple": False, "row": "body.0"}),
        Site("y", "add", 1, facts={"simple": False}),
        trace.sites[2],
    )
    book = ledger(Trace(sites, trace.values, trace.axes))
    assert book is not None
    assert [(r.path, r.kind, dict(r.parts)) for r in book.rows] == [
        ("body.0", "block", {}),
        ("y[1]", "block", {}),
    ]


def test_a_row_is_simple_unless_it_says_otherwise() -> None:
    trace = chain([0.0, -1.0], ["x", "input"], weight_log=[-1.0] * 2)
    book = ledger(Trace((Site("x", "linear"), trace.sites[1]), trace.values, trace.axes))
    assert book is not None and book.rows[0].kind == "linear" and book.rows[0].parts


def test_blocks_in_blocks_open_level_by_level() -> None:
    paths = ["head", "net.a.0", "net.a.1", "net.b", "lone.c", "input"]
    book = ledger(chain([0.0, -1.0, -2.0, -4.0, -7.0, -7.5], paths))
    assert book is not None
    assert [row.path for row in book.rows] == ["head", "net", "lone.c"]
    net = book.rows[1]
    assert [row.path for row in net.children] == ["net.a", "net.b"]
    assert [row.path for row in net.children[0].children] == ["net.a.0", "net.a.1"]
    assert net.children[1].children == () and net.kind == "block"
    assert [leaf.path for leaf in book.leaves()] == paths[:-1]
    assert net.decades == pytest.approx(-6 / DECADE) and net.below == pytest.approx(-7 / DECADE)


def test_calls_of_one_name_and_a_block_of_one_block_are_not_nested() -> None:
    book = ledger(chain([0.0, -1.0, -2.0, -3.0, -4.0], ["a", "a", "net.b.0", "net.b.1", "input"]))
    assert book is not None
    assert [row.path for row in book.rows] == ["a", "a", "net.b"]


def test_a_block_has_the_parts_of_its_rows_if_each_has_some() -> None:
    paths = ["net.0", "net.1", "input"]
    weights, slopes = [-1.0, math.nan, math.nan], [math.nan, math.exp(-1.0), math.nan]
    book = ledger(chain([0.0, -2.0, -3.0], paths, weight_log=weights, slope_sq=slopes))
    assert book is not None
    expected = {"weights": -1.0, "slope": -0.5, "alignment": -1.5}
    assert book.rows[0].parts == pytest.approx({k: v / DECADE for k, v in expected.items()})
    book = ledger(chain([0.0, -2.0, -3.0], paths, weight_log=weights))
    assert book is not None and book.rows[0].parts == {}


def test_an_axis_can_be_chosen_and_needs_two_sites() -> None:
    trace = chain([0.0, -1.0, -2.0], ["a", "b", "input"])
    book = ledger(trace, Axis("other", "time", (0, 2)))
    assert book is not None and book.name == "other" and not book.empty
    assert book.total == pytest.approx(-2 / DECADE) and len(book.rows) == 1
    assert ledger(trace, Axis("other", "time", (0,))) is None
    empty = Trace(trace.sites, np.zeros((0, 3, len(STATISTICS))), trace.axes)
    assert ledger(empty) is None
