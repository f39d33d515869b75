"""The places of a finding: their names, their numbers, and how often a unit was seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import _places


def _build_trace(*sites: Site) -> Trace:
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), np.nan))


def _node(path: str, call: int = 0, **facts: Any) -> Site:
    made: Any = facts
    return Site.node(path, "relu", call, made)


def test_each_name_stands_once_and_twelve_at_most() -> None:
    trace = _build_trace(*[_node(f"a{k}") for k in range(14)], _node("a0"), _node("a0", call=2))
    assert _places.label(trace, [15, 14, 0, 3]) == ("a0[2]", "a0", "a3")
    assert _places.label(trace, range(14)) == tuple(f"a{k}" for k in range(12))


def test_a_site_that_is_named_like_its_operation_needs_no_place() -> None:
    assert _places.locate(_node("relu", call=1)) == ""
    assert _places.locate(_node("net.act", call=1)) == " in net.act[1]"


def test_numbers_are_added_up_and_unknown_ones_count_as_none() -> None:
    sites = [Site.parameter(name, "", {"numel": n}) for name, n in (("a", 3), ("b", 40), ("c", 500))]
    trace = _build_trace(*sites, Site.parameter("d", "", {}))
    assert _places.count_numbers(trace, [0, 2]) == 503
    assert _places.count_numbers(trace, [1, 3]) == 40
    assert _places.count_numbers(trace, []) == 0


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((5, 7), 5),  # samples, features
        ((5, 3, 7), 15),  # samples, tokens, features
        ((5, 7, 2, 3), 30),  # samples, channels, height, width
        ((5, 7, 2, 3, 4), 120),
        ((7,), 1),
        ((), 1),
    ],
)
def test_a_unit_sees_samples_times_positions(shape: tuple[int, ...], seen: int) -> None:
    assert _places.count_observations(_node("a", shape=shape)) == seen


def test_a_unit_of_unknown_shape_is_seen_once() -> None:
    assert _places.count_observations(_node("a")) == 1


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("", ""),
        ("a", "a"),
        ("abc", "a, b, c"),
        ("abcd", "a, b, c and 1 more"),
        ("abcdefg", "a, b, c and 4 more"),
    ],
)
def test_a_sentence_lists_three_places_and_counts_the_rest(names: str, text: str) -> None:
    assert _places.list_first(list(names)) == text


def test_losses_that_read_logits_are_found_among_the_outputs() -> None:
    trace = _build_trace(
        Site.output("mse_loss", 0, {}),
        Site.output("cross_entropy", 0, {}),
        Site.node("cross_entropy", "cross_entropy", 0, {}),
        Site.output("binary_cross_entropy_with_logits", 0, {}),
    )
    assert _places.find_logit_losses(trace) == [1, 3]
