"""INI001 and INI002 on depths written by hand: weights that bear the loss or the growth of a gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Axis, Site, Trace
from unvanish.rules import rule

NAMES = ("backward_log", "weight_log", "slope_sq", "saturated")
DECADE = math.log(10.0)


def _build_chain(weights: list[float], slope: float = 0.0, width: int = 4096) -> Trace:
    """A chain of layers with these gains in nats, an activation of one gain before each; loss to input."""
    sites, rows, log = [], [], 0.0
    for i, weight in enumerate(weights):
        own: Any = {"cut": True, "simple": True, "row_trainable": True, "shape": (8, width)}
        sites.append(Site.node(f"layer{i}", "linear", 0, {**own, "row_layers": 1, "family": "layer"}))
        rows.append((log, weight, math.nan, math.nan))
        log += weight
        if slope:
            sites.append(Site.node(f"act{i}", "relu", 0, {**own, "family": "activation"}))
            rows.append((log, math.nan, math.exp(2 * slope), 0.0))
            log += slope
    axis = Axis("input", "depth", tuple(range(len(sites))))
    return Trace(tuple(sites), np.array([rows]), (axis,), statistics=NAMES)


def _judge(code: str, trace: Trace, **settings: float) -> list[Finding]:
    return rule(code).check(trace, **settings)


@pytest.mark.parametrize(
    ("code", "sign", "direction"), [("INI001", -1, "vanishing"), ("INI002", 1, "exploding")]
)
@pytest.mark.parametrize(
    ("total", "severity"), [(2.9, None), (3.1, "warning"), (5.9, "warning"), (6.1, "error")]
)
def test_three_nats_are_a_warning_and_six_an_error(
    code: str, sign: int, direction: str, total: float, severity: str | None
) -> None:
    each = sign * total / 10  # 13 layers: the first and the last bound ten steps
    found = _judge(code, _build_chain([each] * 13))
    assert [f.severity for f in found] == ([severity] if severity else [])
    other = {"INI001": "INI002", "INI002": "INI001"}[code]
    assert _judge(other, _build_chain([each] * 13)) == []
    for finding in found:
        assert finding.direction == direction and finding.weight == pytest.approx(total)
        ratio, decades, gain = finding.evidence
        assert ratio.value == pytest.approx(sign * total) and ratio.limit == "+-3"
        assert decades.value == pytest.approx(sign * total / DECADE) and decades.limit == "+-1.3"
        assert gain.value == pytest.approx(math.exp(each))
        assert f"{total / DECADE:.1f} decades over 10 layers" in finding.cause


def test_the_limit_is_a_setting() -> None:
    assert _judge("INI001", _build_chain([-0.5] * 13), limit=5.1) == []
    assert _judge("INI002", _build_chain([0.29] * 13), limit=2.8) != []


def test_the_remedies_name_the_layers() -> None:
    (small,) = _judge("INI001", _build_chain([-1.0] * 13))
    assert [(r.cure, r.safety) for r in small.remedies] == [
        ("reinitialise", "retrain"), ("insert-normalisation", "retrain"), ("add-skips", "retrain"),
    ]  # fmt: skip
    assert all(r.targets == small.sites for r in small.remedies) and small.sites
    assert small.remedies[0].parameters == {"gain": "auto"}
    assert "the weights are too small: they keep 0.37 of it a layer" in small.cause
    (large,) = _judge("INI002", _build_chain([math.log(2.0)] * 13))
    assert large.remedies[2].cure == "clip-gradient" and large.remedies[2].safety == "advice"
    assert large.remedies[2].targets == ()
    assert "the weights are too large: a factor of 2.00 a layer" in large.cause


def test_what_activations_take_is_told_if_they_take_most() -> None:
    (found,) = _judge("INI001", _build_chain([-0.25] * 15, slope=-0.3))
    assert f"where {math.exp(0.3):.2f} would pass it on" in found.cause
    (found,) = _judge("INI001", _build_chain([-0.45] * 15, slope=-0.3))
    assert "would pass it on" not in found.cause


@pytest.mark.parametrize(("code", "sign", "word"), [("INI001", -1, "smaller"), ("INI002", 1, "larger")])
def test_one_odd_layer_is_named_alone(code: str, sign: int, word: str) -> None:
    weights = [0.0] * 13
    weights[2] = sign * 4.0
    (found,) = _judge(code, _build_chain(weights))
    assert found.sites == ("layer2",)
    assert found.cause == (
        f"the weights of layer2 are far {word} than those of the other layers: "
        f"gain {math.exp(sign * 4.0):.2g}"
    )
    assert found.evidence[0].name.endswith("first to last layer")
    assert found.evidence[0].value == pytest.approx(sign * 4.0)


def test_without_a_depth_there_is_nothing_to_judge() -> None:
    for code in ("INI001", "INI002"):
        with pytest.raises(NotApplicable, match="fewer than two hidden layers"):
            _judge(code, _build_chain([-1.0]))
