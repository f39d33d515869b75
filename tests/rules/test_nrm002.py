"""NRM002 on traces written by hand: how many normalisations of the stream, and what they take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Axis, Site, Trace
from unvanish.rules import rule

NAMES = ("backward_log", "weight_log", "slope_sq", "saturated", "query_value_log", "token_cosine")
Attention = tuple[float, float]  # its queries' gradient over its values', and the cosine of its tokens


def _build_trace(
    *attentions: Attention,
    norms: int = 12,
    gain: float | None = None,
    skips: tuple[bool, ...] = (),
    **row: Any,
) -> Trace:
    """Attentions, normalisations of the stream, and a depth of thirteen rows with this gain each."""
    sites, rows = [], []
    for i, (share, cosine) in enumerate(attentions):
        sites.append(Site.node(f"att{i}", "attention", 0, {"family": "attention"}))
        rows.append([math.nan] * 4 + [-math.inf if share == 0 else math.log(share), cosine])
    for i in range(norms):
        sites.append(Site.node(f"norm{i}", "layer_norm", 0, {"stream_norm": True}))
        rows.append([math.nan] * 6)
    for i, skip in enumerate(skips):
        own: Any = {"cut": True, "row_attention": True, "row_residual": skip}
        sites.append(Site.node(f"row{i}", "add", 0, own))
        rows.append([math.nan] * 6)
    axes = []
    if gain is not None:
        first = len(sites)
        own = {"cut": True, "row_layers": 1, "shape": (8, 4096), **row}
        sites += [Site.node(f"block{i}", "linear", 0, own) for i in range(13)]
        rows += [[gain * i] + [math.nan] * 5 for i in range(13)]
        axes = [Axis("input", "depth", tuple(range(first, first + 13)))]
    values = np.array(rows, np.float64).reshape(1, len(sites), len(NAMES))
    return Trace(tuple(sites), values, tuple(axes), statistics=NAMES)


def _judge(trace: Trace, **settings: Any) -> Finding | None:
    found = rule("NRM002").check(trace, **settings)
    return found[0] if found else None


def test_the_finding_holds_the_worst_attention_and_the_stream() -> None:
    found = _judge(_build_trace((0.2, 0.99), (0.004, 0.99), (0.09, 0.99), (0.11, 0.99), norms=14))
    assert found is not None and found.severity == "warning" and found.direction == "vanishing"
    assert found.cause == (
        "14 normalisations after additions damp the stream: the queries of att1 get 4.0e-03 of their "
        "values' gradient"
    )
    assert found.sites == ("att1", "att2")
    norms, share = found.evidence
    assert norms.value == 14 and norms.limit == "< 12"
    assert share.value == pytest.approx(0.004) and share.limit == "> 0.01" and share.site == "att1"
    assert [(r.cure, r.safety) for r in found.remedies] == [
        ("pre-normalisation", "retrain"), ("deepnorm", "retrain"), ("warm-up", "advice"),
    ]  # fmt: skip
    stream = tuple(f"norm{i}" for i in range(12))
    assert found.remedies[0].targets == found.remedies[1].targets == stream
    assert found.remedies[1].parameters == {"alpha": pytest.approx(14**0.25)}


@pytest.mark.parametrize(("norms", "fires"), [(11, False), (12, True)])
def test_twelve_normalisations_are_deep(norms: int, fires: bool) -> None:
    assert (_judge(_build_trace((0.001, 0.99), norms=norms)) is not None) == fires
    assert _judge(_build_trace((0.001, 0.99), norms=norms), blocks=13) is None


@pytest.mark.parametrize(
    ("share", "severity"), [(0.011, None), (0.0099, "warning"), (0.0011, "warning"), (0.00099, "error")]
)
def test_a_hundredth_of_the_values_gradient_starves(share: float, severity: str | None) -> None:
    found = _judge(_build_trace((share, 0.99)))
    assert (found and found.severity) == severity
    if found:
        assert found.weight == pytest.approx(max(7.0, -math.log(share)))
        assert _judge(_build_trace((share, 0.99)), starved=share / 2) is None


@pytest.mark.parametrize(("cosine", "fires"), [(0.95, False), (0.951, True)])
def test_the_tokens_must_be_alike(cosine: float, fires: bool) -> None:
    assert (_judge(_build_trace((0.001, cosine))) is not None) == fires


def test_an_attention_of_like_tokens_goes_before_one_of_others() -> None:
    found = _judge(_build_trace((1e-5, 0.5), (0.005, 0.99)))
    assert found is not None and found.evidence[1].site == "att1"
    assert found.sites == ("att0", "att1")
    assert _judge(_build_trace((1e-5, 0.5), (0.05, 0.99))) is None


def test_queries_without_any_gradient_are_an_error_of_the_least_weight() -> None:
    found = _judge(_build_trace((0.0, 0.99)))
    assert found is not None and found.severity == "error" and found.evidence[1].value == 0.0
    assert found.weight == 7.0


def test_unknown_queries_do_not_starve() -> None:
    assert _judge(_build_trace((math.nan, 0.99))) is None
    assert _judge(_build_trace()) is None


@pytest.mark.parametrize(
    ("skips", "fires"),
    [((), True), ((True, False), True), ((True, False, False), False), ((False,), False)],
)
def test_most_attentions_have_a_skip_around_them(skips: tuple[bool, ...], fires: bool) -> None:
    assert (_judge(_build_trace((0.001, 0.99), skips=skips)) is not None) == fires


@pytest.mark.parametrize(("gain", "fires"), [(0.26, False), (0.28, True), (-0.26, False), (-0.28, True)])
def test_a_tilted_depth_is_enough(gain: float, fires: bool) -> None:
    found = _judge(_build_trace((0.5, 0.5), gain=gain))  # eleven steps
    assert (found is not None) == fires
    if found:
        verb = "loses" if gain < 0 else "gains"
        assert f"damp the stream: the gradient {verb} 1.3 decades over 11 layers" in found.cause
        assert found.severity == "warning" and found.sites == tuple(f"norm{i}" for i in range(12))
        assert [e.value for e in found.evidence[2:]] == [
            pytest.approx(11 * gain), pytest.approx(11 * gain / math.log(10.0)),
        ]  # fmt: skip
        assert _judge(_build_trace((0.5, 0.5), gain=gain), limit=4.0) is None


def test_a_tilt_of_unknown_queries_gets_the_least_weight() -> None:
    found = _judge(_build_trace(gain=1.0))
    assert found is not None and found.weight == 7.0 and found.evidence[1].site == ""


def test_a_depth_with_another_cause_is_left_to_it() -> None:
    batch = _build_trace((0.5, 0.5), gain=1.0, row_norm=True, row_batch_norm=True)
    assert _judge(batch) is None  # NRM001
    bare = _build_trace((0.5, 0.5), gain=1.0, row_residual=True)
    assert _judge(bare) is not None  # DEP002, which yields to this


def test_without_a_normalised_stream_there_is_nothing_to_judge() -> None:
    with pytest.raises(NotApplicable, match="no stream is normalised"):
        _judge(_build_trace((0.001, 0.99), norms=0))
