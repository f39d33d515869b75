"""RNN, LSTM and GRU: the gradient kept per step back, its half-life and horizon.

Notable:
- One layer is followed, with its own recurrent weights or with freshly initialised ones, under Gaussian
  inputs of a given power: `memory`. The same matrix acts at every step, so its paths add coherently: a
  default LSTM keeps .63 of the gradient per step; independent steps would keep .54. The usual mean field,
  with fresh weights at every step, is therefore wrong for LSTM and GRU.
- For a vanilla RNN the mean field is right, and closed: q -> sw^2 <phi^2>_q + u, with slope ln(sw^2
  <phi'^2>_q)/2 per step, which is its Lyapunov exponent (Gilboa et al. 2019; Chen et al. 2018): `lyapunov`.
- The slope is that of ln||dL/dh_t|| over the first half of the steps, furthest from the loss.

References: Tallec and Ollivier 2018 (chrono); Jozefowicz et al. 2015 (forget bias).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from unvanish.theory.meanfield import field as maps_of
from unvanish.theory.quadrature import Array

SEED, SAMPLES = 0, 16
GATES = {"rnn": ("h",), "lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


@dataclass(frozen=True)
class MeanFieldCell:
    """A recurrent layer, gate by gate.

    `recurrent`: weights (hidden, hidden); `entering`: per unit, the variance of its weighted input at input
    power 1, (hidden,); `bias` (hidden,); `inner`: a GRU candidate's bias inside its reset gate.
    """

    kind: str
    recurrent: Mapping[str, Array]
    entering: Mapping[str, Array]
    bias: Mapping[str, Array]
    activation: str = "tanh"
    inner: Array = field(default_factory=lambda: np.zeros(1))

    def __post_init__(self) -> None:
        if self.kind not in GATES:
            raise ValueError(f"no recurrent layer {self.kind!r}; there are {', '.join(GATES)}")


@dataclass(frozen=True)
class Memory:
    """A gradient's way back through time: ln||dL/dh|| by step, and its half-life and horizon."""

    log: Array  # (steps,), relative to the last step; the state of an LSTM is (h, c)
    carry: Array  # the same for a gradient that enters at the last step alone
    power: float  # E h^2 at the end
    inflow: (
        Array  # (steps,), ln of the gradient that each step sends to its input, for one that arrives with 0
    )

    @property
    def through(self) -> float:
        """Ln of ||dL/dx||^2 over all steps, for a gradient ||dL/dh||^2 = 1 at the last one."""
        top = float(self.inflow.max())
        return 2 * top + math.log(float(np.exp(2 * (self.inflow - top)).sum()))

    @property
    def slope(self) -> float:
        """Nats of ||dL/dh_t|| per step towards the loss; negative if the gradient explodes backwards."""
        half = self.log[: max(2, len(self.log) // 2)]
        return float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0

    @property
    def half_life(self) -> float:
        """Steps over which half of the gradient is lost; inf if none is."""
        return math.log(2) / self.slope if self.slope > 1e-12 else math.inf

    @property
    def horizon(self) -> float:
        """Steps over which a factor e^3 is lost or gained: the reach of learning."""
        return 3 / abs(self.slope) if abs(self.slope) > 1e-12 else math.inf


def default_cell(
    kind: str, hidden: int, inputs: int, *, activation: str = "tanh", seed: int = SEED
) -> MeanFieldCell:
    """PyTorch's own initialisation: every number from U(-1/sqrt(hidden), 1/sqrt(hidden))."""
    rng, bound = np.random.default_rng(seed), hidden**-0.5

    def drawn(*shape: int) -> Array:
        return np.asarray(rng.uniform(-bound, bound, shape))

    gates = GATES[kind]
    recurrent = {g: drawn(hidden, hidden) for g in gates}
    entering = {g: (drawn(hidden, inputs) ** 2).sum(1) for g in gates}
    both = {g: drawn(hidden) + (0.0 if kind == "gru" and g == "n" else drawn(hidden)) for g in gates}
    return MeanFieldCell(kind, recurrent, entering, both, activation, drawn(hidden))


def chrono(cell: MeanFieldCell, steps: int, *, seed: int = SEED) -> MeanFieldCell:
    """The same layer with biases for a memory of `steps` steps: ln U(1, steps - 1) on the gate that keeps.

    LSTM: on the forget gate, the negative on the input gate; GRU: on the update gate. ValueError for an RNN.
    """
    keeps = {"lstm": "f", "gru": "z"}.get(cell.kind)
    if keeps is None:
        raise ValueError("an RNN has no gate that keeps its state")
    spread = np.log(np.random.default_rng(seed).uniform(1, max(2, steps - 1), len(cell.bias[keeps])))
    zero = np.zeros_like(spread)
    bias = {g: spread if g == keeps else -spread if g == "i" else zero for g in cell.bias}
    return replace(cell, bias=bias, inner=zero)


def memory(cell: MeanFieldCell, steps: int, power: float = 1.0, arriving: Array | None = None) -> Memory:
    """The gradient's way back through `steps` steps of independent Gaussian inputs of this power.

    `arriving`: ln of the gradient that the loss sends to each step's output, (steps,), 0 at the last; without
    it the loss reads the last step alone.
    """
    run = KINDS[cell.kind](cell, np.random.default_rng(SEED))
    for _ in range(steps):
        run.step(power)
    carry, inflow = run.back(None)
    log = carry
    if arriving is not None:
        log, inflow = run.back(arriving)
    return Memory(log, carry, float(np.mean(run.state**2)), inflow)


def power_after(cell: MeanFieldCell, steps: int, power: float = 1.0) -> float:
    """E h^2 after `steps` steps; it settles within a few time constants, so at most 200 are run."""
    run = KINDS[cell.kind](cell, np.random.default_rng(SEED))
    for _ in range(min(steps, 200)):
        run.step(power)
        run.past = run.past[-1:]
    return float(np.mean(run.state**2))


def lyapunov(sw: float, entering: float, activation: str = "tanh") -> float:
    """A vanilla RNN's largest Lyapunov exponent in nats per step: ln(sw^2 <phi'^2>_q)/2 at the fixed
    point.
    """
    maps = maps_of(activation)
    q = maps.fixed_point(sw, math.sqrt(entering))
    return 0.5 * math.log(maps.chi(min(max(q, 1e-12), 1e12), sw))


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


Returned = tuple[Array, Array, dict[str, Array], dict[str, Array]]


class _Layer:
    """The three kinds' common part: the state (hidden, samples), and sums over states and inputs."""

    def __init__(self, cell: MeanFieldCell, rng: np.random.Generator) -> None:
        self.cell, self.rng = cell, rng
        self.shape = (len(cell.bias[GATES[cell.kind][0]]), SAMPLES)
        self.state = np.zeros(self.shape)
        self.past: list[dict[str, Array]] = []

    def _input(self, gate: str, power: float) -> Array:
        spread = np.sqrt(self.cell.entering[gate] * power)[:, None]
        return self.cell.bias[gate][:, None] + spread * self.rng.standard_normal(self.shape)

    def _gate(self, gate: str, power: float) -> Array:
        return self._input(gate, power) + self.cell.recurrent[gate] @ self.state

    def back(self, arriving: Array | None) -> tuple[Array, Array]:
        """Logs of the gradient at each step's state and input, relative to the last state's."""
        state, cell = self.rng.standard_normal(self.shape), np.zeros(self.shape)
        scale, logs, arrived = 0.0, [], []
        for place, now in enumerate(reversed(self.past)):
            if arriving is not None and place:
                size = math.exp(min(300.0, float(arriving[-1 - place]) - scale))
                state = state + size * self.rng.standard_normal(self.shape)
            size = max(float(np.mean(state**2 + cell**2)) ** 0.5, 1e-300)
            state, cell, scale = state / size, cell / size, scale + math.log(size)
            logs.append(scale)
            state, cell, deltas, entering = self._one_back(now, state, cell)
            state = state + sum(self.cell.recurrent[g].T @ d for g, d in deltas.items())
            inner = sum(self.cell.entering[g] @ d**2 for g, d in entering.items())
            arrived.append(scale + 0.5 * math.log(max(float(np.mean(inner)) / len(state), 1e-300)))
        return np.array(logs[::-1]) - logs[0], np.array(arrived[::-1]) - logs[0]

    def step(self, power: float) -> None:
        raise NotImplementedError

    def _one_back(self, now: dict[str, Array], state: Array, cell: Array) -> Returned:
        """The direct gradients of state and cell, and the gates' gradients by state and by input."""
        raise NotImplementedError


class _Vanilla(_Layer):
    def step(self, power: float) -> None:
        z = self._gate("h", power)
        value = np.tanh(z) if self.cell.activation == "tanh" else np.maximum(z, 0)
        slope = 1 - value**2 if self.cell.activation == "tanh" else (z > 0).astype(np.float64)
        self.state = value
        self.past.append({"slope": slope})

    def _one_back(self, now: dict[str, Array], state: Array, cell: Array) -> Returned:
        deltas = {"h": state * now["slope"]}
        return np.zeros(self.shape), cell, deltas, deltas


class _Lstm(_Layer):
    def step(self, power: float) -> None:
        i, f, o = (_sigmoid(self._gate(g, power)) for g in "ifo")
        g = np.tanh(self._gate("g", power))
        before = self.past[-1]["c"] if self.past else np.zeros(self.shape)
        c = f * before + i * g
        self.past.append({"i": i, "f": f, "g": g, "o": o, "c": c, "before": before})
        self.state = o * np.tanh(c)

    def _one_back(self, now: dict[str, Array], state: Array, cell: Array) -> Returned:
        i, f, g, o, t = now["i"], now["f"], now["g"], now["o"], np.tanh(now["c"])
        cell = cell + state * o * (1 - t**2)
        deltas = {
            "i": cell * g * i * (1 - i),
            "f": cell * now["before"] * f * (1 - f),
            "g": cell * i * (1 - g**2),
            "o": state * t * o * (1 - o),
        }
        return np.zeros(self.shape), cell * f, deltas, deltas


class _Gru(_Layer):
    def step(self, power: float) -> None:
        before = self.state
        r, z = _sigmoid(self._gate("r", power)), _sigmoid(self._gate("z", power))
        inner = self.cell.inner[:, None] + self.cell.recurrent["n"] @ before
        n = np.tanh(self._input("n", power) + r * inner)
        h = (1 - z) * n + z * before
        self.past.append({"r": r, "z": z, "n": n, "before": before, "inner": inner})
        self.state = h

    def _one_back(self, now: dict[str, Array], state: Array, cell: Array) -> Returned:
        r, z, n = now["r"], now["z"], now["n"]
        candidate = state * (1 - z) * (1 - n**2)
        deltas = {
            "r": candidate * now["inner"] * r * (1 - r),
            "z": state * (now["before"] - n) * z * (1 - z),
            "n": candidate * r,
        }
        return state * z, cell, deltas, {**deltas, "n": candidate}


KINDS: dict[str, type[_Layer]] = {"rnn": _Vanilla, "lstm": _Lstm, "gru": _Gru}
