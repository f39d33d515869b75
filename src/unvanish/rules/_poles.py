"""What helps against the poles of an operation: each has its own remedy, and one epsilon is none for all.

Limits

None of its own: a number is finite or not. The smallest number of float16 is 2^-24, 6e-8, so
half of it is rounded to zero; its normal numbers begin at 2^-14, 6e-5.
"""

from __future__ import annotations

KEEP_AWAY = "keep its input away from the pole: clamp before, or an epsilon inside"
REWRITTEN = {  # no bound on the input helps: it has to be written in another way
    "zero_infinity=True, and targets no longer than the outputs, in which a repeat counts twice": (
        "ctc_loss",
    ),
    "a mean over no label: leave out a batch all of whose labels are ignored, or divide their sum by at "
    "least one; logits within the range of the dtype": ("cross_entropy_loss", "nll_loss_nd", "nll_loss"),
    "its gradient divides by the differences of its values: add a small ramp to the diagonal, or use what "
    "needs no vectors, as a norm or a trace": ("svd", "svdvals", "eigh", "eig", "eigvals", "eigvalsh", "qr"),
    "the matrix is singular, or nearly: add an epsilon to its diagonal": (
        *("cholesky", "inv", "solve", "det", "slogdet", "logdet", "pinv", "matrix_exp"),
    ),
    "its slope at 0 is no number: sqrt(sum of squares + epsilon)": ("cdist", "pairwise_distance"),
    "a row without a single key: let each row keep one, or set such rows to zero afterwards": (
        *("scaled_dot_product_attention", "log_softmax", "logsumexp"),
    ),
}
BOUNDED = {
    "its slope is infinite at -1 and 1: clamp to just inside, or use atan2(sin, cos)": (
        *("acos", "asin", "arccos", "arcsin"),
    ),
    "it is infinite at -1 and 1: clamp to just inside": ("atanh", "arctanh", "erfinv"),
    "it is infinite at 0 and 1: clamp to just inside, or stay with logits": ("logit",),
    "its argument reaches -1: log1p(x) of x above -1, or logsigmoid for log(1 - sigmoid(x))": ("log1p",),
    "a mean over nothing: leave out an empty selection, or divide the sum by at least one": (
        *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "mean", "nanmean"),
    ),
    "zero times infinity, or a difference of infinities: choose with where before the pole, on its input": (
        *("mul", "matmul", "bmm", "mm", "einsum", "sub", "add", "cumsum", "sum"),
    ),
    "its slope at 0 is no number: sqrt(sum of squares + epsilon)": ("norm", "vector_norm"),
    "its slope is infinite at 0: sqrt(x + epsilon), with the epsilon inside the root": ("sqrt", "rsqrt"),
    "a power below 1 has an infinite slope at 0: (x + epsilon) ** p": ("pow", "float_power"),
    "log(x + epsilon), or log_softmax and logsigmoid on the logits": (*("log", "log2", "log10", "xlogy"),),
    "it divides by zero: a count or a sum of at least one, clamp(min=1), or an epsilon": (
        *("div", "true_divide", "reciprocal"),
    ),
    "it overflows: bound its input, as a log-variance to between -10 and 10, or stay with logs (logsumexp)": (
        *("exp", "exp2", "expm1", "softplus", "sinh", "cosh"),
    ),
    "a row without a single key: let each row keep one, or set such rows to zero afterwards": ("softmax",),
    "the deviation of one value, or the root of no variance: correction=0, and an epsilon inside": (
        *("std", "var"),
    ),
}
BY_LOGS = ("log", "log2", "log10", "log1p", "logit", "exp", "softmax", "binary_cross_entropy", "loss", "")
HELD = "float16 rounds a constant below 3e-8 to zero: add 1e-4, which it holds"
CARE = {kind: why for table in (REWRITTEN, BOUNDED) for why, kinds in table.items() for kind in kinds}


def describe_care(kind: str, half: bool = False) -> str:
    """What keeps an operation of this kind finite, in a sentence; `half`: it runs in float16."""
    care = CARE.get(_bare(kind), KEEP_AWAY)
    return f"{care}; {HELD}" if half and "epsilon" in care else care


def needs_rewriting(kind: str) -> bool:
    """Whether no bound on its input helps an operation of this kind."""
    return any(_bare(kind) in kinds for kinds in REWRITTEN.values())


def has_stable_form(kind: str) -> bool:
    """Whether torch has a function that computes with logarithms what is made of this one."""
    return _bare(kind) in BY_LOGS


def _bare(kind: str) -> str:
    return kind.removeprefix("linalg_").removesuffix("_")
