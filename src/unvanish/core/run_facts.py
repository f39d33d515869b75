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
    lr: NDArray[np.float64]  # the largest of all groups
    low: NDArray[np.float64]  # the smallest of all groups
    loss: NDArray[np.float64]
    norm_log: NDArray[np.float64]  # ln of the norm of all gradients, as the optimizer sees it
    before_log: NDArray[np.float64]  # the same before clipping
    finite: NDArray[np.float64]  # 1 if the norm is
    skipped: NDArray[np.float64]  # 1 if the loss scaler left the step out
    clipped: NDArray[np.float64]  # 1 if the norm was clipped
    exact: NDArray[np.float64]  # 1 if the norm was measured whole
    kept: NDArray[np.float64]  # 1 if the last step's gradient was still there at each backward, else 0
    still: NDArray[np.float64]  # share of the weights looked at that a gradient reached and nothing moved
    update_log: NDArray[np.float64]  # ln of what the step changed over what was there
    along: NDArray[np.float64]  # cosine of the change with the negative gradient
    shrink: NDArray[np.float64]  # cosine of the change with the negative weights
    agree: NDArray[np.float64]  # cosine of the gradient with that of the same weights before
    nil: NDArray[np.float64]  # share of the gradient's elements that are exactly zero
    undone: NDArray[np.float64]  # share of what the step moved that was back at the next reading
    again: NDArray[np.float64]  # 1 if the weight is exactly what it was at an earlier reading
    pull: NDArray[np.float64]  # the gradient that arrives at the loss, without the loss scale
    backwards: NDArray[np.float64]  # backward passes through the loss in this step


class HoldingFacts(TypedDict):
    """What the optimizers of a watched training hold, at the last look."""

    left: list[str]  # parameters that get a gradient, that none of them holds and nothing moves
    trainable: int  # parameters of the model that require a gradient
    share: float  # of their numbers that `left` holds
    stale: list[str]  # parameters of the model whose place in an optimizer another tensor takes
    frozen: list[str]  # parameters that were trained and no longer require a gradient
    frozen_share: float  # of the numbers that were trained
    given: int  # parameters that had a gradient when an optimizer was about to step
    idle: list[str]  # parameters with a gradient whose optimizer has not stepped, though others did


class PlanFacts(TypedDict):
    """How the optimizers of a watched training move weights, at the last look."""

    decay: float  # the largest weight decay of all groups
    dtype: str  # of most of the weights
    resolution: float  # median half unit in the last place of the weights looked at
    planned: float  # median step of one of their elements; NaN if the optimizer is none of torch's
    error: bool  # the loss module is one of torch's own, which no training raises
    averaged: bool  # the loss module takes the mean of its batch


class LabelFacts(TypedDict):
    """The labels of a watched training, of its losses at looks, each a cross-entropy or a binary one."""

    guess: float  # loss in nats of the best answer that is the same for every sample
    off: float  # by which that is too small at most, as there are few labels
    read: list[tuple[int, float]]  # step and value of each loss
    varied: float  # share of the losses whose labels differ among the samples
    same: bool  # each loss has the same labels as the first
    answers: int  # classes; 2 for yes and no


class BatchFacts(TypedDict):
    """The batches of a watched training, as its looks met them."""

    steps: list[int]  # of the looks, in order
    alike: list[bool]  # whether the look has the very batch of the look before
    met: list[int]  # samples of it that an earlier look had met, labels in hand
    same: list[int]  # of these, how many have the label that they had then
    lent: list[int]  # and how many have one that another sample had
    chance: float  # share that would keep it if labels were drawn by their frequency


class ModeFacts(TypedDict):
    """The mode of a watched training's model at its steps."""

    since: int  # first step of the last in a row that were made in evaluation mode; -1: the last was not
    times: int  # that it was asked since then
    turned: bool  # whether steps before were made in training mode
    norms: list[str]  # its normalisations with running statistics, in evaluation mode now
    fresh: list[str]  # of these, those whose statistics are still 0 and 1
    dropouts: int  # in evaluation mode now


class BrokenFacts(TypedDict):
    """The first step of a watched training whose gradient was not finite."""

    step: int
    last_healthy: int  # -1 if no step was healthy
    gradients: list[str]  # parameters whose gradient is not finite
    weights: list[str]  # parameters that are not finite
    parameters: int  # how many there are
    loss: float
    heard: bool  # whether the loss is known


class CriticalFacts(TypedDict):
    """The loss along a step of the optimizer, on the batch of that step."""

    step: int  # its number; -1 if it is planned and not made
    rate: float  # learning rate of the first group
    multiple: float  # of the step, the largest that still lowers the loss; 0: none, NaN: it leads up
    loss_before: float
    loss_after: float
    forwards: int  # that this took


StepColumn = Literal[
    "step",
    "wall",
    "lr",
    "low",
    "loss",
    "norm_log",
    "before_log",
    "finite",
    "skipped",
    "clipped",
    "exact",
    "kept",
    "still",
    "update_log",
    "along",
    "shrink",
    "agree",
    "nil",
    "undone",
    "again",
    "pull",
    "backwards",
]
