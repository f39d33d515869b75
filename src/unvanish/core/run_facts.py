"""The facts of a watched training: its steps, and what its run folder says of it."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray


class RunFacts(TypedDict, total=False):
    """What a run folder holds about its training."""

    name: str
    model: str  # its class
    optimizers: list[str]  # their classes
    budget: float  # share of the run's time
    every: int | None  # steps between two looks; None if the budget decides
    overhead: float | str  # share of the run's time that the watch took; "nan" if unknown
    looks: int
    closed: bool  # whether the writer came to its end
    dropped: int  # records that could not be written
    lost_steps: int  # of these, rows of steps
    notes: list[str]  # what the watch left out, and why
    python: str
    torch: str
    axes: list[dict[str, Any]]  # name, kind and sites of each
    statistics: list[str]  # columns of the samples
    site_count: int
    parameters: int
    rank: int  # of this process among those that train together
    sessions: list[list[int]]  # first step and number of ranks, each time the run was begun or continued
    layout: str  # a digest of the parameters that this rank holds
    shards: int  # ranks that hold them together
    relayed: list[int]  # ranks of other machines, whose records came through the process group's store


class HistoryFacts(TypedDict, total=False):
    """The last steps of a watched training, an array (steps,) for each column; NaN = not measured."""

    step: NDArray[np.float64]
    wall: NDArray[np.float64]  # seconds
    lr: NDArray[np.float64]
    loss: NDArray[np.float64]
    norm_log: NDArray[np.float64]  # ln of the norm of all gradients, as the optimizer sees it
    before_log: NDArray[np.float64]  # the same before clipping
    finite: NDArray[np.float64]  # 1 if the norm is
    skipped: NDArray[np.float64]  # 1 if the loss scaler left the step out
    clipped: NDArray[np.float64]  # 1 if the norm was clipped
    exact: NDArray[np.float64]  # 1 if the norm was measured whole


class BrokenFacts(TypedDict):
    """The first step of a watched training whose gradient was not finite."""

    step: int
    last_healthy: int  # -1 if no step was healthy
    gradients: list[str]  # parameters whose gradient is not finite
    weights: list[str]  # parameters that are not finite
    parameters: int  # how many there are
    loss: float


class CriticalFacts(TypedDict):
    """The loss along a step of the optimizer, on the batch of that step."""

    step: int  # its number; -1 if it is planned and not made
    rate: float  # learning rate of the first group
    multiple: float  # of the step, the largest that still lowers the loss; 0: none, NaN: it leads up
    loss_before: float
    loss_after: float
    forwards: int  # that this took


StepColumn = Literal[
    "step", "wall", "lr", "loss", "norm_log", "before_log", "finite", "skipped", "clipped", "exact"
]
