"""The facts of a loss: where it meets the targets, what it adds up, what it asks for."""

from __future__ import annotations

from typing import Literal, TypedDict

BroadcastKind = Literal["samples x samples", "output repeated", "target repeated"]


class BroadcastFacts(TypedDict):
    """Where the loss repeats the output, or what it meets, to make their shapes fit."""

    how: BroadcastKind
    kind: str  # of the operation
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # of the output's side, and of the other
    table: tuple[int, ...]  # of the result
    source: str  # the line of code, "file.py:12"; "" if unknown


class AscentFacts(TypedDict):
    """A likelihood, an error or a similarity that a loss makes worse as it falls."""

    kind: (
        str  # of the loss function or the logarithm; "overlap", "correlation", "embedding", "reward" by hand
    )
    slope: float  # mean slope of what it reads, of 1
    given: bool  # it is about the batch's targets
    source: str  # the line of code, "file.py:12"; "" if unknown


class WishFacts(TypedDict):
    """What a loss makes of its targets: by weights, smoothed labels, a power, a divisor, expected signs."""

    how: Literal[
        "negative",
        "zero",
        "left out",
        "frequency",
        "drowned",
        "smoothed",
        "inverted",
        "unsigned",
        "scaled",
        "collapsed",
        "power",
        "floor",
        "scores",
    ]
    share: float  # of the labels; what rare classes weigh; what is left of a label, or by a power; at a floor
    classes: tuple[int, ...]
    source: str  # the line of code, "file.py:12"; "" if unknown


class AnswerFacts(TypedDict):
    """Targets that are the model's own input, moved along its steps."""

    shift: int  # steps from an output to its target in the input
    sees: bool  # the output depends on it
    ahead: bool  # the output depends on later steps than its own
    whole: bool  # the input is whole numbers


class FilledFacts(TypedDict):
    """Targets that are padding, and count."""

    share: float
    label: int | None  # that fills them; None for zeros among numbers
    source: str  # the line of the loss, "file.py:12"; "" if unknown


Sureness = Literal["each", "tokens", "even", "uneven"]


class ClassNumberFacts(TypedDict):
    """Labels that a loss takes for quantities."""

    kinds: int  # of labels
    # how sure that is: one label against several scores; tokens; labels that are equally frequent, or not
    how: Sureness
    source: str  # the line of code, "file.py:12"; "" if unknown


RouterFault = Literal["one for all", "constant", "twice", "factor", "faint", "copies", "alone"]


class SoftRouterFacts(TypedDict):
    """A router that mixes all experts, and what keeps it from telling them, or the tokens, apart."""

    path: str  # of the module that mixes
    experts: int
    why: RouterFault
    number: float  # the factor, the size of what it reads, the share of the rows ...


class SoftmaxFacts(TypedDict):
    """A softmax whose weights do not add up to one along the axis that is summed over."""

    path: str  # of the module that runs it
    axis: int  # that it normalises, from 0
    axes: int  # of what it reads
    line: str  # of the user's code; "" if unknown


class SwapFacts(TypedDict):
    """A view that gives the axes of a sample another order, in the model or against the targets."""

    path: str  # of the module that views
    line: str  # of the user's code; "" if unknown
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # before and after; of the output and of the targets


class NearPoleFacts(TypedDict):
    """A power below one of a probability that is all but zero."""

    kind: str  # "pow", "sqrt"
    exponent: float
    least: float  # the smallest number that it is taken of
    source: str  # the line of code, "file.py:12"; "" if unknown


class BottomFacts(TypedDict):
    """A loss that falls without end, and faster than the output grows."""

    kind: str  # of what enters it with a minus: "exp", "pow"
    source: str  # the line of code, "file.py:12"; "" if unknown
    power: float  # with which it falls as what it reads grows


class SummedFacts(TypedDict):
    """A loss that is a plain sum."""

    samples: int
    count: int  # of the numbers that are added up
    source: str  # the line of code, "file.py:12"; "" if unknown


class TermFacts(TypedDict):
    """A summand of the loss."""

    kind: str  # of the operation that made it
    source: str  # its line of code, "file.py:12"; "" if unknown
    weight: float  # the factor with which it enters the loss
    value: float  # without the factor; NaN if unknown
    data: bool  # it depends on what the model made, not on parameters alone
    answers: bool  # the batch's targets enter it
    constant: float  # the one number that it asks of all outputs; NaN if there are several, or none is known
    own: bool  # it trains parameters that no other term reaches


class PairFacts(TypedDict):
    """The gradients of two summands in the parameters that both reach, factors included."""

    first: int
    second: int
    norms: tuple[float, float]
    cosine: float


class FlatPathFacts(TypedDict):
    """An operation without a slope through which alone a term of the loss reaches parameters."""

    kind: str  # "normal", "round", "grid_sampler" ...
    path: str  # of the module that runs it, or "the loss"
    line: str  # of the user's code; "" if unknown
    parameters: tuple[str, ...]  # that another term teaches


class LossFacts(TypedDict, total=False):
    """What a trace holds of its loss, and of what it asks for."""

    broadcasts: list[BroadcastFacts]
    ascents: list[AscentFacts]
    turned_twice: list[AscentFacts]  # raised beside others, below a function that turns gradients round
    wishes: list[WishFacts]
    terms: list[TermFacts]
    pairs: list[PairFacts]
    answer: AnswerFacts
    filled: FilledFacts
    summed: SummedFacts
    soft_routers: list[SoftRouterFacts]
    class_numbers: ClassNumberFacts
    misplaced: list[SoftmaxFacts]
    bottom: BottomFacts
    near_pole: NearPoleFacts
    flat_paths: list[FlatPathFacts]
    swaps: list[SwapFacts]  # in the model
    misaligned: list[SwapFacts]  # of output and targets, both flattened
