"""The order-chaos diagram against closed forms of ReLU, erf and the linear layer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory import closed_forms
from unvanish.theory.phase import Phase, depth_of, log_chi_at_rest, phase
from unvanish.theory.tables import table


@pytest.mark.parametrize("sw", [0.5, 1.0, 2.5])
def test_a_homogeneous_function_has_the_same_chi_everywhere(sw: float) -> None:
    for sb in (0.0, 0.7):
        log, depth = depth_of("relu", sw, sb)
        assert log == pytest.approx(math.log(sw**2 / 2))
        assert depth == pytest.approx(6 / abs(math.log(sw**2 / 2)))


def test_at_criticality_the_depth_is_a_million() -> None:
    assert depth_of("identity", 1.0, 0.0)[1] == pytest.approx(1e6)
    assert depth_of("identity", math.exp(5e-6), 0.0)[1] == pytest.approx(6e5, rel=1e-3)


@pytest.mark.parametrize(("sw", "sb"), [(0.7, 0.2), (1.3, 0.0), (1.5, 0.3), (2.5, 0.9)])
def test_erf_settles_at_its_fixed_point(sw: float, sb: float) -> None:
    q = 1.0
    for _ in range(3000):
        q = sw**2 * closed_forms.erf_power(q) + sb**2
    assert depth_of("erf", sw, sb)[0] == pytest.approx(math.log(sw**2 * closed_forms.erf_slope(q)), abs=1e-4)


def test_a_length_that_fades_or_diverges_is_read_at_the_end() -> None:
    assert depth_of("erf", 0.3, 0.0)[0] == pytest.approx(math.log(0.09 * 4 / math.pi), abs=1e-4)
    slope = float(table("square").read("slope", math.exp(30)))
    assert depth_of("square", 3.0, 1.0)[0] == pytest.approx(math.log(9 * slope))
    assert float(log_chi_at_rest(table("relu"), 0.0, 1.0)) == pytest.approx(math.log(1e-300))


def test_arrays_of_weights_and_biases() -> None:
    sw, sb = np.array([[0.8, 1.6]]), np.array([[0.0], [0.5], [1.0]])
    found = log_chi_at_rest(table("erf"), sw, sb)
    assert found.shape == (3, 2)
    assert found[1, 1] == pytest.approx(depth_of("erf", 1.6, 0.5)[0])
    assert found[2, 0] == pytest.approx(depth_of("erf", 0.8, 1.0)[0])


def test_the_diagram_spans_the_given_range() -> None:
    found = phase("erf", columns=8, rows=3, sw=2.0, sb=0.5)
    assert found.activation == "erf"
    assert found.sw == pytest.approx(np.arange(1, 9) / 4)
    assert found.sb == pytest.approx([0.0, 0.25, 0.5])
    assert found.log_chi.shape == (3, 8)
    assert found.log_chi[2, 3] == pytest.approx(depth_of("erf", 1.0, 0.5)[0])
    assert found.depth[2, 3] == pytest.approx(depth_of("erf", 1.0, 0.5)[1])


def test_the_default_diagram() -> None:
    found = phase("relu")
    assert found.log_chi.shape == found.depth.shape == (24, 64)
    assert (found.sw[0], found.sw[-1]) == pytest.approx((3 / 64, 3.0))
    assert (found.sb[0], found.sb[-1]) == (0.0, 1.0)


def test_the_critical_line() -> None:
    line = phase("erf", columns=4, rows=2, sw=1.6, sb=0.6).critical
    for point in line:
        assert point.sw**2 * closed_forms.erf_slope(point.q) == pytest.approx(1.0)
        assert point.sw**2 * closed_forms.erf_power(point.q) + point.sb**2 == pytest.approx(point.q)
        assert point.sw <= 1.6
        assert point.sb <= 0.6
    lengths = np.geomspace(1e-4, 30.0, 60)
    weights = np.array([closed_forms.erf_slope(q) ** -0.5 for q in lengths])
    rest = lengths - weights**2 * np.array([closed_forms.erf_power(q) for q in lengths])
    inside = (weights <= 1.6) & (rest <= 0.36)
    assert [p.q for p in line] == pytest.approx(lengths[inside])
    wide = phase("erf", columns=4, rows=2, sw=1.2, sb=50.0).critical
    assert [p.q for p in wide] == pytest.approx(lengths[weights <= 1.2])
    low = phase("erf", columns=4, rows=2, sw=50.0, sb=0.1).critical
    assert [p.q for p in low] == pytest.approx(lengths[rest <= 0.01])


def test_the_depth_of_a_diagram() -> None:
    log = np.array([[0.5, -0.5, 0.0, 3e-6]])
    found = Phase("tanh", np.ones(4), np.ones(1), log, ()).depth
    assert found == pytest.approx(np.array([[12.0, 12.0, 1e6, 1e6]]))


def test_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="did you mean 'tanh'"):
        phase("tanhh")
