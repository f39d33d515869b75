"""The names of torch's functions, sorted into families, and what is known of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

# largest |phi'| of the functions bounded on both sides; relu6 is not one: it is flat on one side by design
SQUASHING = {
    "tanh": 1.0,
    "sigmoid": 0.25,
    "hardtanh": 1.0,
    "hardsigmoid": 1 / 6,
    "softsign": 1.0,
    "erf": 1.1284,
}
RECTIFIERS = {"relu", "relu6", "threshold", "hardshrink", "softshrink"}
ACTIVATIONS = {
    *SQUASHING,
    *RECTIFIERS,
    *("leaky_relu", "prelu", "rrelu", "gelu", "silu", "mish", "elu", "selu", "celu", "softplus", "hardswish"),
    *("log_sigmoid", "tanhshrink", "logsigmoid"),
}
GROUPED = {"grouped_mm", "_grouped_mm"}  # a row goes through one of several weights (experts, in, out)
MULTIPLICATIONS = {"matmul", "addmm", "mm", "einsum"}  # layers only if a factor is a parameter
LAYERS = {
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("bilinear", "convolution"),
    *MULTIPLICATIONS,
    *GROUPED,
}
WEIGHT = {  # which argument of a layer its weights are, if not "weight"
    "matmul": "other",
    "addmm": "mat2",
    "mm": "mat2",
    "einsum": "operand",
    "_grouped_mm": "mat2",
    "grouped_mm": "mat_b",
}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
COLUMNS = {"matmul", "addmm", "mm", *GROUPED}  # weights stored (in, out)
NORMS = {"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"}
BY_SAMPLE = {"layer_norm", "rms_norm"}  # each sample, or token, by itself
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
FUSED = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
PRODUCTS = {"matmul", "bmm", "baddbmm", "einsum", "mm"}
POOLS = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("fractional_max_pool2d", "fractional_max_pool3d"),
}
ADAPTIVE_POOLS = {
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
}
ATTENTION = {"scaled_dot_product_attention", "softmax"}
DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"}
VIEWS = {
    *("view", "reshape", "transpose", "permute", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("contiguous", "clone", "t", "T", "mT", "movedim", "swapaxes", "view_as", "to", "float", "double"),
    *("half", "bfloat16", "type", "type_as", "alias", "ravel", "identity", "expand", "expand_as"),
}
MASKS = {  # write what they are given
    *("masked_fill", "masked_scatter", "where", "fill", "index_fill", "scatter", "index_put", "setitem"),
}
ROUTING = {  # each input owns a part of the result, and may rightly get no gradient
    *("stack", "cat", "concat", "pad", "getitem", "index", "index_select", "select", "narrow", "slice"),
    *("gather", "split", "chunk", "unbind", "scatter", "scatter_add", "index_add", "index_put"),
    *("masked_select", "where", "roll", "flip", "unfold", "max", "amax", "min", "amin", "topk", "sort"),
    *("take", "diagonal", "tril", "triu", "masked_fill", "maximum", "minimum", "copy", "setitem"),
    *("max_pool1d", "max_pool2d", "max_pool3d"),
    *VIEWS,
}
LOSSES = {
    "cross_entropy_loss": "cross_entropy",
    "nll_loss_nd": "nll_loss",
    "nll_loss": "nll_loss",
    "nll_loss2d": "nll_loss",
    "binary_cross_entropy": "binary_cross_entropy",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    "mse_loss": "mse_loss",
    "l1_loss": "l1_loss",
    "smooth_l1_loss": "smooth_l1_loss",
    "huber_loss": "huber_loss",
    "kl_div": "kl_div",
    "soft_margin_loss": "soft_margin_loss",
    "multilabel_margin_loss": "multilabel_margin_loss",
}
GRAPH_CUTS = {
    "detach": "detach",
    "detach_": "detach",
    "data": "data",
    "numpy": "numpy",
    "item": "item",
    "tolist": "tolist",
    "grad": "create_graph",
}
INTEGERS = {
    "argmax": "argmax",
    "argmin": "argmax",
    "argsort": "argsort",
    "multinomial": "sampling",
    "bernoulli": "sampling",
}
SUMS = {"add", "sub", "rsub", "stack", "cat"}  # by which the terms of a loss are put together
FEW = 64  # terms
CHOICES = {"topk", "max", "argmax", "sort"}  # along the last axis, as a router makes them
PICKS = {"topk", "max", "min", "sort", "kthvalue", "mode", "median", "cummax", "cummin"}  # and say where
COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne", "greater", "less"}


def count_outputs(kind: str, shape: Sequence[int], groups: int = 1) -> int:
    """How many output features a layer's weights make, of all experts together."""
    if kind in TRANSPOSED:
        return shape[1] * groups
    if kind in GROUPED:
        return shape[-1] * math.prod(shape[:-2])
    return shape[-1] if kind in COLUMNS else shape[0]


@cache
def plain_name(name: str) -> str:
    """`relu_`, `__add__`, `__iadd__`, `__rmul__` as `relu`, `add`, `add`, `mul`."""
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        for prefix in ("i", "r"):
            if name[:1] == prefix and name[1:] in ("add", "sub", "mul", "truediv", "matmul", "pow"):
                name = name[1:]
    return {"truediv": "div", "log_softmax_": "log_softmax"}.get(
        name, name.rstrip("_") if name[:1] != "_" else name
    )


@cache
def dtype(kind: object) -> str:
    """A dtype's name without its module."""
    return str(kind).removeprefix("torch.")


@cache
def family(kind: str) -> str:
    """The family of a kind, as the rules call it."""
    for name, members in (
        ("activation", ACTIVATIONS),
        ("layer", LAYERS),
        ("norm", NORMS),
        ("recurrent", RECURRENT),
        ("attention", ATTENTION),
    ):
        if kind in members:
            return name
    return "add" if kind in ("add", "sub", "add_n") else "other"
