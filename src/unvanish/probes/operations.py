"""What an operation is: the names of torch's functions, sorted into families, and what is known of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

# largest |phi'| of the functions bounded on both sides (relu6: bounded, but flat on one side by design)
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
LAYERS = {
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *(
        "bilinear",
        "convolution",
        "matmul",
        "addmm",
        "mm",
        "einsum",
    ),  # the last ones where one factor is a weight
    *GROUPED,
}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
COLUMNS = {"matmul", "addmm", "mm", *GROUPED}  # weights stored (in, out)
NORMS = {"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm", "local_response_norm"}
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
FUSED = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
PRODUCTS = {"matmul", "bmm", "baddbmm", "einsum", "mm"}
ATTENTION = {"scaled_dot_product_attention", "softmax"}
DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"}
VIEWS = {
    *(
        "view",
        "reshape",
        "transpose",
        "permute",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "contiguous",
    ),
    *("clone", "t", "T", "mT", "movedim", "swapaxes", "view_as", "to", "float", "double", "half", "bfloat16"),
    *("type", "type_as", "alias", "ravel", "identity", "expand", "expand_as"),
}
ROUTING = {  # each input owns a part of the result, and may get nothing by right
    *(
        "stack",
        "cat",
        "concat",
        "pad",
        "getitem",
        "index",
        "index_select",
        "select",
        "narrow",
        "slice",
        "gather",
    ),
    *(
        "split",
        "chunk",
        "unbind",
        "scatter",
        "scatter_add",
        "index_add",
        "index_put",
        "masked_select",
        "where",
    ),
    *(
        "roll",
        "flip",
        "unfold",
        "max",
        "amax",
        "min",
        "amin",
        "topk",
        "sort",
        "take",
        "diagonal",
        "tril",
        "triu",
    ),
    *("masked_fill", "max_pool1d", "max_pool2d", "max_pool3d", "maximum", "minimum", "copy", "setitem"),
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
}
INTEGERS = {
    "argmax": "argmax",
    "argmin": "argmax",
    "argsort": "argsort",
    "multinomial": "sampling",
    "bernoulli": "sampling",
}
COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne", "greater", "less"}


def outputs(kind: str, shape: Sequence[int], groups: int = 1) -> int:
    """How many output features the weights of a layer make, those of all experts together."""
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
    """The family of a kind, as rules name it."""
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
