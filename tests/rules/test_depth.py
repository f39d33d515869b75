"""What the rules on the depth report of one reading: its evidence, its severity, and the layers to blame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import _depth, rule
from unvanish.rules._tiers import MEASURED

DECADE = math.log(10.0)


def _build_chain(weights: list[float], losses: list[float] | None = None) -> Trace:
    """Linear layers from the loss to the input; `weights`, `losses`: nats of the weights, and of a row after.

    The first row is the output layer and is not judged; a row after a layer has an account of its own.
    """
    sites, logs, gains = [], [0.0], []
    for k, weight in enumerate(weights):
        layer: Any = {"simple": True, "row_layers": 1, "cut": True, "family": "layer"}
        sites.append(Site.node(f"l{k}", "linear", 0, layer))
        gains.append(weight)
        logs.append(logs[-1] + weight)
        if losses is not None:
            cat: Any = {"cut": True, "row_kinds": ("cat",)}
            sites.append(Site.node(f"c{k}", "cat", 0, cat))
            gains.append(math.nan)
            logs.append(logs[-1] + losses[k])
    sites.append(Site.node("x", "linear", 0, {"cut": True}))
    values = np.full((1, len(sites), len(STATISTICS)), np.nan)
    values[0, :, list(STATISTICS).index("backward_log")] = logs
    values[0, :-1, list(STATISTICS).index("weight_log")] = gains
    return Trace(tuple(sites), values, (Axis("x", "depth", tuple(range(len(sites)))),))


def _judge(code: str, trace: Trace, **settings: float) -> Finding:
    (found,) = rule(code).check(trace, **settings)
    return found


@pytest.mark.parametrize(
    ("code", "sign", "words", "direction"),
    [
        ("INI001", -1, "loses 2.2 decades over 5 layers because the weights are too small", "vanishing"),
        ("INI002", 1, "gains 2.2 decades over 5 layers because the weights are too large", "exploding"),
    ],
)
def test_layers_of_equal_weights(code: str, sign: int, words: str, direction: str) -> None:
    """Six layers behind the output: five rows of one nat, 5 / ln 10 = 2.17 decades."""
    found = _judge(code, _build_chain([0.0, *[float(sign)] * 6]))
    assert (found.severity, found.direction) == ("warning", direction)
    assert found.cause.startswith(f"the gradient {words}: ") and "pass it on" not in found.cause
    assert found.weight == pytest.approx(MEASURED.weigh(5.0))
    nats, decades, gain = found.evidence
    assert (nats.value, nats.limit, nats.unit) == (pytest.approx(5.0 * sign), "+-3", "nats")
    assert nats.name.endswith("trend over the layers")
    assert (decades.value, decades.limit) == (pytest.approx(5.0 * sign / DECADE), "+-1.3")
    assert decades.name == "the same over 5 layers"
    assert gain.value == pytest.approx(math.exp(sign))
    assert set(found.sites) == {f"l{k}" for k in range(1, 6)}


def test_the_gain_is_the_geometric_mean_and_the_worst_comes_first() -> None:
    found = _judge("INI001", _build_chain([0.0, -1.0, -1.5, -0.5, -1.0, -1.0, -1.0]))
    assert found.evidence[2].value == pytest.approx(math.exp(-1.0))
    assert found.sites[0] == "l2" == found.evidence[2].site
    assert "they keep 0.37 of it a layer" in found.cause


@pytest.mark.parametrize(
    ("each", "severity"), [(0.59, None), (0.61, "warning"), (1.19, "warning"), (1.21, "error")]
)
@pytest.mark.parametrize(("code", "sign"), [("INI001", -1), ("INI002", 1)])
def test_beyond_the_limit_is_a_warning_and_beyond_twice_an_error(
    code: str, sign: int, each: float, severity: str | None
) -> None:
    """Five rows: 2.95, 3.05, 5.95 and 6.05 nats."""
    found = rule(code).check(_build_chain([0.0, *[sign * each] * 6]))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_a_single_step_is_one_layer() -> None:
    found = _judge("INI001", _build_chain([0.0, -4.0, -4.0]))
    assert "over 1 layer because" in found.cause and found.evidence[1].name == "the same over 1 layer"


@pytest.mark.parametrize(("sign", "code", "than"), [(-1, "INI001", "smaller"), (1, "INI002", "larger")])
def test_one_odd_layer_is_judged_by_the_endpoints(sign: int, code: str, than: str) -> None:
    """The trend, a median, does not see it; from the first layer to the last it is four nats."""
    found = _judge(code, _build_chain([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, sign * 4.0, 0.0]))
    assert found.sites == ("l6",) and found.severity == "warning"
    gain = f"{math.exp(4.0 * sign):.2g}"
    assert found.cause == f"the weights of l6 are far {than} than those of the other layers: gain {gain}"
    assert found.evidence[0].name.endswith("first to last layer")
    assert found.weight == pytest.approx(MEASURED.weigh(4.0))


@pytest.mark.parametrize(("weight", "lost", "said"), [(-0.5, -1.5, True), (-1.1, -0.9, False)])
def test_weights_that_bear_less_than_half_are_compared_with_what_would_pass_it_on(
    weight: float, lost: float, said: bool
) -> None:
    """Five rows lose `weight` by their weights and `lost` beside them: a gain of exp(-lost) would do."""
    found = _judge("INI001", _build_chain([0.0, *[weight] * 6], [0.0, *[lost] * 6]))
    assert (f", where {math.exp(-lost):.2f} would pass it on" in found.cause) == said
    assert found.evidence[2].value == pytest.approx(math.exp(weight))


def test_a_factor_is_named_where_the_gradient_grows() -> None:
    assert ": a factor of 2.72 a layer" in _judge("INI002", _build_chain([0.0, *[1.0] * 6])).cause


def test_the_remedies_name_the_layers_and_advice_names_none() -> None:
    small, large = (
        _judge(*case)
        for case in (
            ("INI001", _build_chain([0.0, *[-1.0] * 6])),
            ("INI002", _build_chain([0.0, *[1.0] * 6])),
        )
    )
    assert [(r.cure, r.targets) for r in small.remedies] == [
        ("reinitialise", small.sites),
        ("insert-normalisation", small.sites),
        ("add-skips", small.sites),
    ]
    assert (large.remedies[2].cure, large.remedies[2].targets) == ("clip-gradient", ())
    assert dict(small.remedies[0].parameters) == {"gain": "auto"}


def test_only_the_rule_that_is_blamed_reports() -> None:
    trace = _build_chain([0.0, *[-1.0] * 6])
    assert [c for c in ("ACT002", "DEP002", "INI001", "INI002") if rule(c).check(trace)] == ["INI001"]


def test_a_reading_is_made_once_for_each_limit() -> None:
    trace = _build_chain([0.0, *[-1.0] * 6])
    first, wide = _depth.read(trace, 3.0), _depth.read(trace, 5.5)
    assert first is _depth.read(trace) and first is not wide
    assert first is not None and wide is not None
    assert (first.severity, wide.severity) == ("warning", "")


def test_a_finding_may_be_no_worse_than_its_rule_allows() -> None:
    found = _depth.read(_build_chain([0.0, *[-2.0] * 6]))
    assert found is not None and found.severity == "error"
    kept = {"cause": "c", "evidence": (), "remedies": ()}
    trace: Any = _build_chain([0.0, *[-2.0] * 6])
    assert _depth.report(trace, found, **kept)[0].severity == "error"
    assert _depth.report(trace, found, **kept, worst="warning")[0].severity == "warning"


def test_a_module_that_is_no_rule_is_never_blamed() -> None:
    found = _depth.read(_build_chain([0.0, *[-1.0] * 6]))
    assert found is not None
    assert _depth.blames(found, "unvanish.rules.ini001_weights_too_small")
    assert not _depth.blames(found, "unvanish.rules.ini002_weights_too_large")
    assert not _depth.blames(found, "unvanish.rules._depth")


@pytest.mark.parametrize("weights", [[], [0.0], [0.0, -9.0]])
def test_two_hidden_layers_are_needed(weights: list[float]) -> None:
    trace = _build_chain(weights)
    assert _depth.read(trace) is None
    with pytest.raises(NotApplicable, match="fewer than two hidden layers"):
        rule("INI001").check(trace)
