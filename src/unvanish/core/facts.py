"""The facts that sites and traces carry, by role: one vocabulary for those who write and those who read.

Notable:
- Every key is optional: what was not measured is absent. At run time these are plain dicts.
- mypy takes an unknown key in `.get` for `object`; `tests/core/test_facts.py` finds it, and unused keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from unvanish.core.loss_facts import LossFacts
from unvanish.core.run_facts import (
    BatchFacts,
    BrokenFacts,
    CriticalFacts,
    HistoryFacts,
    HoldingFacts,
    LabelFacts,
    ModeFacts,
    PlanFacts,
    RunFacts,
)

Shape = tuple[int, ...]
StopReason = Literal["zero parameter", "locked", "series", "dead", "number", "operation", "loss"]
MixingKind = Literal["along", "reshape", "product", "attention", "recurrent", "scatter", "offset"]
Apart = tuple[str, float, float]  # a row of the ledger, its predicted and its measured decades


class RowFacts(TypedDict, total=False):
    """What lies between a cut of the main depth axis and the next one towards the input."""

    row: str  # the path that the operations of the row have in common
    simple: bool  # one operation, so the row's gain is its own
    row_residual: bool  # a path of additions and views alone leads through it
    row_layers: int  # how many layers: linear, convolutional
    row_trainable: bool  # a layer of it learns; True without layers
    row_norm: bool  # holds a normalisation
    row_batch_norm: bool  # holds one that reads the statistics of the batch
    row_recurrent: bool
    row_attention: bool
    row_kinds: tuple[str, ...]  # kinds of its operations, sorted
    row_pole: float  # ln of the usual over the least number that it divides by


class NodeFacts(RowFacts, total=False):
    """An operation of the autograd graph, or a call of a module that no operation stands for."""

    order: int  # when it ran, counted from 0; -1 for a call of a module; see `Site.order`
    family: str  # "layer", "activation", "norm", "add", "attention" ...; see `Site.family`
    module: str  # path of the module whose forward made it
    line: str  # of the user's code, "net.py:12", of what stops or spoils a gradient
    parameters: tuple[str, ...]  # names of the parameters among its arguments
    shape: Shape  # of its result
    dtype: str  # of its result, "float32"
    function: str  # name of a `torch.autograd.Function` that somebody wrote
    output: bool  # a loss function reads its result
    in_loss: bool  # it is an operation of the loss
    # layers
    weight: str | None  # the weight's name; None if it is made in the forward
    fan_in: int  # inputs that a unit sums over
    fan_out: int  # outputs that an input reaches
    frozen: bool  # the weight does not learn
    # activations and normalisations
    squashing: bool  # bounded on both sides: sigmoid, tanh ...
    rectifier: bool  # zero or flat on one side: relu ...
    normalised: int  # values that share a mean and a spread
    batch_statistics: bool  # normalises by the statistics of the batch
    fresh: bool  # its running statistics are 0 and 1, as at the start
    momentum: float  # with which they are updated
    forced: str  # the line that makes it use the batch's in evaluation too
    off_mean: float  # of running statistics that are used: distance of the batch's mean, in deviations
    off_scale: float  # ln of the ratio of the batch's variance to theirs
    # what the first layer reads, if its features are uneven
    feature_axis: int
    feature_ratio: float  # the largest feature over the least, as the weights pass them on
    feature_large: float  # the usual size of the largest feature
    feature_small: float
    outlier: float  # the largest value of a feature over its usual one
    outlier_top: float  # that value
    outlier_usual: float  # the usual one of that feature
    fed_rms: float  # the size of what it reads, if it was made of whole numbers that entered the model
    fed_whole: bool  # and it is whole numbers still
    scaled_rms: float  # the size of what it reads, if the model scaled or shifted it before
    scaled_max: float  # its largest value
    padding: float  # share of the positions that a mean is taken of
    # attention
    tokens: int  # keys
    query_tokens: int
    heads: int
    causal: bool
    # a router under watch
    experts: int
    choices: int  # experts that a token goes to
    rows: int  # tokens
    # place on the main depth axis
    cut: bool  # every gradient path crosses it
    smooths: float  # ln of what a mean over neighbours leaves of the differences between rows
    segment: int | None  # number of the cut at or above it; None outside the axis
    stream_norm: bool  # a normalisation between two residual rows
    # faults
    kills: bool  # a gradient arrives and none leaves
    kills_because: StopReason
    starved: int  # parameters that get no gradient because of it
    locked: tuple[str, ...]  # parameters that are zero and keep each other's gradient zero
    produces: Literal[
        "forward", "backward"
    ]  # the pass in which it makes a NaN or an infinity of finite numbers
    nonfinite_first: bool  # the first that does
    nonfinite_kind: str  # "NaN", "infinity", "NaN or infinity"


class ParameterFacts(TypedDict, total=False):
    """A parameter; in a watched training, the parameters of one module."""

    shape: Shape
    numel: int  # elements
    trainable: bool
    module: str  # path of the module that owns it
    executed: bool  # its module ran
    used: bool  # an operation read it
    used_at: int  # `order` of the operation after the last one that read it; -1 if none did
    reachable: bool  # the loss reaches it
    asleep: bool  # trainable before the forward, and not while it ran or at the backward
    # why the loss is kept from it on purpose
    apart: Literal["", "copy", "written", "target", "spare", "last", "derivative"]
    optimised: bool | None  # the optimizer holds it; None without an optimizer
    tied: bool  # several modules share it
    twin_thirds: bool  # a packed (q, k, v) weight holds the same numbers three times
    uniform: bool  # all its rows are equal and not zero; read if a gradient is mere rounding
    twins_stay: bool  # units with equal weights have equal gradients too
    copied: str  # the first weight that holds the same numbers and gets the same gradient; its own name, too
    rounding: bool  # its gradient cancels, exactly or to rounding, of which float64 leaves a thousandth
    zero_by_structure: bool  # a bias whose gradient cancels for all data
    planned: float  # the step that the optimizer will take with an element
    step_lost: float  # share of the elements that it leaves as they are, for its dtype
    decay: float  # how hard an unusual weight decay pulls at it, and the loss, in one unit
    push: float
    epsilon_lost: bool  # the optimizer's epsilon and squared gradient are zero in its dtype
    zero_third: bool  # the gradient of a bias cancels in its middle third: packed (q, k, v)
    # in a watched training
    order: int  # place among the modules
    dimensions: int  # of the largest parameter
    epsilon: float  # in the denominator of its optimizer; 0 if it has none
    dtype: str  # of the largest parameter


class StepFacts(TypedDict, total=False):
    """One time step of a recurrence."""

    of: str  # the recurrence: module path, layer and direction
    step: int  # from 0
    steps: int  # how many the recurrence has
    reverse: bool  # runs from the last step to the first
    module: str


class InputFacts(TypedDict, total=False):
    """A tensor of the batch that the model was given."""

    shape: Shape
    dtype: str
    floating: bool
    mean: float
    std: float
    features: tuple[tuple[float, float], ...]  # centre and scale of each feature, if they are uneven
    units: tuple[float, ...]  # of log1p(x / unit), in which features that span decades are described; else 0
    axis: int  # of the features
    alike: bool  # all samples are equal
    constant_columns: float  # share of the columns of a table that are constant and not zero
    repeated_columns: float  # share of those that repeat another one


class OutputFacts(TypedDict, total=False):
    """A call of a known loss function, or the loss itself."""

    value: float  # of the loss
    # what the loss function reads
    logit_max: float  # largest finite |element|
    logit_top: float  # a typical range of the logits of one sample
    residual: float  # mean |prediction - target|, in [0, 1]
    wrong: float  # share of wrong samples
    activation: str  # kind of the output function that the loss reads; "" without one
    site: str  # path of that function
    output_slope: float  # its mean slope, relative to the steepest
    double: bool  # it applies what the loss applies again
    read_rms: float  # root mean square of what the loss reads
    read_mean: float
    # what the targets ask for
    target_low: float
    target_high: float
    target_mean: float
    target_std: float
    target_columns: tuple[tuple[float, float], ...]  # mean and deviation of each column of a table
    given: bool  # the targets are, or are made of, what the batch gives
    bounds: tuple[float, float]  # the least and the largest value that the output function gives
    beyond: float  # share of the targets outside of them
    classes: int  # length of the axis along which the output function, or the loss, normalises
    unlike_rows: float  # share of the rows of targets that add up to more than one, where a softmax gives one
    unnormalised: float  # share of the rows that do not add up to one where the targets do
    raw: str  # "probabilities" or "scores" where logarithms of probabilities are asked for; else ""
    floor: str  # kind of the function that keeps the logits above a value
    floor_share: float  # share of the logits that are exactly there
    labels: int  # kinds of labels
    maps: int  # of labels, where each sample has several; 0 if it has one
    left_out: float  # share of the labels that ignore_index leaves out although it is a class
    answers: int  # how many labels there are
    cut_off: float  # share of scores that a clamp puts at 0 or 1
    crossed: bool  # the axis of the classes is not that on which the last layer made them
    cosine_scale: float  # the factor of logits that are cosines
    cosine_learned: bool  # it is learned
    logit_factor: float  # below one, that a layer's scores are multiplied by
    swapped: bool  # the targets stand where the output should
    short: float  # share of the samples with fewer steps than targets


class SiteFacts(NodeFacts, ParameterFacts, StepFacts, InputFacts, OutputFacts, total=False):
    """Facts of a site of any role, as readers see them."""


class GraphCut(TypedDict):
    """Where the forward left the autograd graph."""

    path: str  # of the module that did it
    call: int  # of that module
    how: str  # "detach", "data", "no_grad", "argmax", "comparison" ...
    order: int  # of the operation that follows
    line: str  # of the user's code, "net.py:12"; "" if unknown
    frees: tuple[str, ...]  # parameters that the loss would reach without it
    behind: int  # how many further cuts lie between it and the loss


class HookFacts(TypedDict):
    """A hook that sets gradients to zero."""

    path: str  # of the parameter, or of the module it acts in
    on: Literal["parameter", "tensor", "module"]
    line: str  # that put it there; "" if unknown
    starves: tuple[str, ...]  # parameters that get zeros because of it


class DeadTermFacts(TypedDict):
    """A term of the loss without a gradient."""

    how: str  # it lost it: "detach", "argmax", "round" ...
    path: str  # of the module that did it, or "the loss"
    line: str  # of the user's code; "" if unknown
    adds: float  # to the value of the loss; NaN if unknown


class CurvatureFacts(TypedDict):
    """A second derivative that is exactly zero."""

    path: str  # of the module that asks for it
    line: str  # of the user's code; "" if unknown
    activations: tuple[tuple[str, str], ...]  # those of straight pieces that ran: module and kind


class ForcedFacts(TypedDict):
    """A dropout that drops in evaluation, too."""

    what: str  # "dropout", "attention"
    path: str  # of the module that runs it
    line: str  # of the user's code; "" if unknown
    meant: bool  # training=True is written out
    evaluating: bool  # the module was in evaluation mode


class RouterFacts(TypedDict):
    """A router of a mixture of experts."""

    path: str  # of the module that chooses
    load: tuple[float, ...]  # share of the choices that each expert gets
    chosen: int  # experts a token goes to
    rows: int  # tokens
    certain: float  # mean share of the probability that the chosen experts have


class LeakFacts(TypedDict):
    """A dependence of one sample's output on other samples."""

    path: str  # of the module that mixes them
    how: MixingKind
    line: str  # of the user's code; "" if unknown
    ratio: float  # the largest gradient at another sample over that at the own one
    sure: bool  # the first axis is that of the samples, and not of time
    rows: bool  # samples are single rows, so a sequence of them was made on purpose


class WrongGradientFacts(TypedDict):
    """A function that somebody wrote, whose gradient is not that of its output."""

    function: str  # its class
    path: str  # of the module that called it
    argument: int  # which of its inputs
    factor: float  # gradient / difference, where it is everywhere the same; else NaN
    identity: bool  # it returns this input unchanged
    deaf: bool  # the gradient is the same whatever arrives


class AsideFacts(TypedDict):
    """An operation off the graph that made a NaN or an infinity of finite numbers."""

    kind: str
    makes: str  # "NaN", "infinity"
    line: str  # of the user's code
    in_loss: bool


class ForeignFacts(TypedDict):
    """A leaf of the graph that learns and is no parameter of the model."""

    path: str  # the names that lead to it
    place: Literal["attribute", "function", "loss", "made"]  # made: in the forward itself
    in_module: bool  # a module that is not part of the model holds it
    in_loss: bool  # only the loss reads it
    line: str  # that made it; "" if unknown
    numel: int
    optimised: bool | None  # the optimizer holds it; None without an optimizer


class PrecisionFacts(TypedDict, total=False):
    """How half precision would hold the gradients at its best loss scale."""

    dtype: str
    finite_in_float32: bool
    flushed: float  # share of elements below its smallest number
    overflowed: float  # share of elements above its largest number
    best_scale_log2: float
    range: tuple[float, float] | None  # log2 of the loss scales that hold the gradients
    nonfinite_native: bool  # no loss scale gives finite gradients in this dtype
    zero_unscaled: bool  # without a loss scale all gradients are exactly zero
    overflow_unscaled: bool  # without a loss scale some are not finite


TheoryKey = Literal["predicted", "measured", "apart"]  # decades, decades, tuple of `Apart`


class TraceFacts(RunFacts, LossFacts, total=False):
    """Facts of a whole trace: a measured batch, a prediction, a watched training, or a run folder."""

    loss: float
    loss_kind: str  # the loss functions called, by name
    objective: str  # what the gradient is of: "random cotangent" without a loss
    aside: AsideFacts  # the first operation off the graph that made a NaN or an infinity
    target_nonfinite: bool  # the batch's targets hold a NaN or an infinity
    loss_overflow: bool  # the loss overflows although the outputs are finite
    batch_size: int | None
    dtype: str  # of the first parameter
    dtypes: tuple[str, ...]  # floating dtypes of all results
    device: str
    training: bool  # the model's mode
    assumptions: list[str]  # sentences
    unmeasured: list[str]  # sentences: what could not be measured, where, and why
    predicted: bool  # by theory: nothing was run
    crash: str  # what the model or the loss raised
    stale: int  # tensors that the optimizer holds and the model does not, shaped like some that it lacks
    graph_cuts: list[GraphCut]
    normalised_again: list[tuple[str, str, str]]  # path, kind of what made probabilities; kind of the second
    dead_terms: list[DeadTermFacts]
    flat_curvatures: list[CurvatureFacts]
    leak: LeakFacts
    wrong_gradients: list[WrongGradientFacts]
    turned_estimators: list[tuple[str, str]]  # straight-through by hand with a minus: module, line
    forced_dropouts: list[ForcedFacts]
    idle_dropouts: int  # how many calls drop nothing because of the mode
    dropouts: dict[str, float]  # share of the values that is dropped, by module, of what is active
    routers: list[RouterFacts]
    foreign: list[ForeignFacts]
    hooks: list[HookFacts]  # that set gradients to zero
    warned: dict[str, str]  # of gradients, by torch: the text; the line of the user's code, "" if unknown
    precision: PrecisionFacts
    not_put_back: list[str]  # what the model reaches that the examination may have changed: where, and what
    severed: dict[str, tuple[int, int, str, str]]  # states cut at each step: calls, reached, by whom, line
    theory: Mapping[TheoryKey, Any]  # the predicted and the measured total; empty beyond theory's reach
    critical: list[CriticalFacts]  # what steps of the optimizer do to the loss
    maximizes: bool  # the optimizer goes up
    asked: bool  # the critical step was asked for
    # watched trainings
    live: bool
    precision_live: bool  # a site is in float16
    steps: list[int]  # of the looks
    history: HistoryFacts
    start: list[float]  # losses of the run's first steps
    past: NDArray[np.float64] | None  # largest values of the looks that left the window, (sites, statistics)
    broken: BrokenFacts
    holding: HoldingFacts
    plan: PlanFacts
    labels: LabelFacts
    ways: list[float]  # cosine of the gradient at the step with that after its backward, of the last looks
    modes: ModeFacts
    batches: BatchFacts
