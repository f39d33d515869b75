"""Sites and traces: roles, defaults, columns, and finding sites by their facts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.core.trace import STATISTICS, Axis, Site, Trace

SITES = (
    Site.input("input", {"shape": (8, 4), "floating": True}),
    Site.node("first", "linear", 0, {"order": 0, "family": "layer"}),
    Site.node("block", "block", 0, {}),
    Site.node("first", "linear", 1, {"order": 3, "family": "layer", "kills": True}),
    Site.parameter("first.weight", "Linear", {"trainable": True, "numel": 16}),
    Site.step("rnn", "lstm", 2, {"of": "rnn", "step": 2, "steps": 5}),
    Site.output("cross_entropy", 0, {"value": 0.5}),
)


def trace(*axes: Axis) -> Trace:
    values = np.full((2, len(SITES), len(STATISTICS)), math.nan)
    values[0, 1, 0], values[1, 1, 0] = 1.5, 2.5
    return Trace(SITES, values, axes)


def test_a_constructor_sets_the_role_and_keeps_the_facts():
    assert [site.role for site in SITES] == ["input", "node", "node", "node", "parameter", "step", "output"]
    assert SITES[4].facts == {"trainable": True, "numel": 16}
    assert (SITES[5].path, SITES[5].kind, SITES[5].call) == ("rnn", "lstm", 2)
    assert (SITES[6].path, SITES[6].kind) == ("loss", "cross_entropy")


def test_what_is_no_operation_has_no_order_and_no_family():
    assert [site.order for site in SITES] == [-1, 0, -1, 3, -1, -1, -1]
    assert [site.family for site in SITES[:4]] == ["", "layer", "", "layer"]
    assert Site("x", "y").facts == {}


def test_a_label_counts_from_the_second_call():
    assert [SITES[i].label for i in (1, 3)] == ["first", "first[1]"]
    assert Site("", "net").label == "(model)"


def test_sites_are_found_by_role_and_facts():
    found = trace()
    assert found.where("node") == [1, 2, 3]
    assert found.where("node", family="layer") == [1, 3]
    assert found.where("node", family="layer", kills=True) == [3]
    assert found.where(trainable=True) == [4]
    assert found.where("step", trainable=True) == []


def test_an_unknown_fact_or_statistic_is_refused():
    with pytest.raises(KeyError, match="did you mean 'rectifier'"):
        trace().where("node", rectifyer=True)
    with pytest.raises(KeyError, match="no statistic 'norm'"):
        trace().column("norm")


def test_numbers_are_those_of_the_last_step_unless_a_step_is_given():
    name = next(iter(STATISTICS))
    found = trace()
    assert found.value(1, name) == 2.5 and found.value(1, name, 0) == 1.5
    assert found.column(name)[1] == 2.5 and found.column(name, 0)[1] == 1.5
    assert math.isnan(found.value(0, name))


def test_the_main_axis_is_the_longest_depth():
    axes = (Axis("a", "depth", (1,)), Axis("b", "depth", (3, 1)), Axis("c", "time", (5, 3, 1)))
    main = trace(*axes).depth()
    assert main is not None and main.name == "b"
    assert trace().depth() is None


def test_values_have_a_place_for_every_site_and_statistic():
    with pytest.raises(ValueError, match="expected"):
        Trace(SITES, np.zeros((1, 2, len(STATISTICS))))


def test_a_site_is_a_first_call_unless_it_says_otherwise():
    assert Site("x", "y").call == 0 and Site("x", "y").role == "node"
    assert [SITES[i].call for i in (0, 4)] == [0, 0]


def test_the_last_of_three_steps_is_read():
    values = np.arange(3.0 * len(STATISTICS)).reshape(3, 1, len(STATISTICS))
    found = Trace(SITES[:1], values)
    name = list(STATISTICS)[2]
    assert found.value(0, name) == values[2, 0, 2] == found.column(name)[0]
    assert found.value(0, name, 1) == values[1, 0, 2] == found.column(name, 1)[0]


def test_readings_kept_with_a_trace_are_no_part_of_it():
    values = np.zeros((1, 0, len(STATISTICS)))
    first, second = Trace((), values), Trace((), values)
    first.derived["key"] = 1
    assert second.derived == {} and first == second
    assert "key" not in repr(first) and "derived" not in repr(first)
    with pytest.raises(TypeError):
        Trace((), values, derived={})
    with pytest.raises(ValueError, match="expected"):
        Trace((), values[0])
