"""The gradient through time of one recurrent layer, summed over the sequences by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.probes.recurrent.unroll import Replay


@dataclass(frozen=True)
class Profile:
    """The gradient through time of one direction of one layer; index 0 is the step processed first.

    `state_log`, (T,): ln ||dL/ds_t||, all that reaches the state, by the output and by the recurrence; s = h,
    or (h, c) for an LSTM, h and c being independent coordinates. -inf when exactly zero.
    `carry_log`, (T,): ln of the gain of a random cotangent on the last state, carried back to step t by the
    recurrence alone; root mean square over probes and sequences; `carry_log[-1] == 0`. Sequences of unequal
    length are aligned at their ends.
    """

    layer: int
    reverse: bool
    steps: int
    state_log: NDArray[np.float64]
    carry_log: NDArray[np.float64]

    @property
    def step_gain(self) -> NDArray[np.float64]:
        """The carried gradient's gain from step t+1 back to step t, (T-1,); NaN once nothing is left."""
        with np.errstate(invalid="ignore"):
            return np.exp(self.carry_log[:-1] - self.carry_log[1:])


def summarise(run: Replay, logs: NDArray[np.float64]) -> Profile:
    """Sum the logs of the norms (1+P, N) over the sequences, by step and by distance from the end."""
    sizes = np.array(run.layout.sizes)
    steps = len(sizes)
    if run.layout.level:
        grid = logs.reshape(len(logs), steps, -1)[:, :: -1 if run.reverse else 1]
    else:
        grid = _align(run, logs, sizes)
    count = (len(logs) - 1) * sizes[::-1]  # sizes[k] sequences have more than k steps
    with np.errstate(invalid="ignore"):  # a NaN stays one
        state = np.logaddexp.reduce(2 * grid[0], axis=-1) / 2
        carry = (np.logaddexp.reduce(2 * grid[1:], axis=(0, 2)) - np.log(count)) / 2
        return Profile(run.layer, run.reverse, steps, state, carry - carry[-1])


def _align(run: Replay, logs: NDArray[np.float64], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """The logs as (1+P, T, B), in order of processing; the probes' end together. -inf: no such step."""
    steps = len(sizes)
    step = np.repeat(np.arange(steps), sizes)
    row = np.concatenate([np.arange(b) for b in sizes])
    length = (sizes[:, None] > np.arange(sizes[0])).sum(0)
    distance = step if run.reverse else length[row] - 1 - step
    grid = np.full((len(logs), steps, sizes[0]), -np.inf)
    grid[0, steps - 1 - step if run.reverse else step, row] = logs[0]
    grid[1:, steps - 1 - distance, row] = logs[1:]
    return grid
