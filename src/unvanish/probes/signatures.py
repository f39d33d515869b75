"""The arguments of torch's operations: their names, order and defaults, in one table.

Notable: the function mode sees through the compositions of `torch.nn.functional`, so the calls are those of
ATen: `batch_norm` takes weight and bias before the running statistics, and losses a number for `reduction`. A
test compares every entry with torch's own schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Signature(NamedTuple):
    """The names of all arguments in order, and the defaults of those that may be left out."""

    names: tuple[str, ...]
    defaults: Mapping[str, Any]


def _signature(*required: str, **optional: Any) -> Signature:
    return Signature((*required, *optional), optional)


_NUMPY = {"x": "input", "a": "input", "x1": "input", "x2": "other", "axis": "dim", "keepdims": "keepdim"}
_BINARY = _signature("input", "other")
_SUM = _signature("input", "other", alpha=1)
_PRODUCT = _signature("input", "mat2")
_CONVOLUTION = _signature("input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1)
_TRANSPOSED = _signature(
    "input", "weight", bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
)
_FUSED = _signature(  # of a packed batch: data, batch_sizes, hx, ..., without batch_first
    *("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
)
_CELL = _signature("input", "hx", "w_ih", "w_hh", b_ih=None, b_hh=None)
_MAX_POOL = _signature("input", "kernel_size", stride=(), padding=0, dilation=1, ceil_mode=False)
_AVG_POOL = _signature(
    "input",
    "kernel_size",
    stride=(),
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
)
_ADAPTIVE_POOL = _signature("input", "output_size")
_FRACTIONAL_POOL = _signature("input", "kernel_size", "output_size", "random_samples")
_SOFTMAX = _signature("input", "dim", dtype=None)
_DROPOUT = _signature("input", "p", "train")
_LOSS = _signature("input", "target", reduction=1)
_CLASS_LOSS = _signature("input", "target", weight=None, reduction=1, ignore_index=-100)

SIGNATURES: dict[str, Signature] = {
    # layers
    "linear": _signature("input", "weight", bias=None),
    "bilinear": _signature("input1", "input2", "weight", bias=None),
    "conv1d": _CONVOLUTION,
    "conv2d": _CONVOLUTION,
    "conv3d": _CONVOLUTION,
    "conv_transpose1d": _TRANSPOSED,
    "conv_transpose2d": _TRANSPOSED,
    "conv_transpose3d": _TRANSPOSED,
    "convolution": _signature(
        *("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding"),
        "groups",
    ),
    "embedding": _signature("weight", "indices", padding_idx=-1, scale_grad_by_freq=False, sparse=False),
    # matrix products
    "matmul": _BINARY,
    "mm": _PRODUCT,
    "bmm": _PRODUCT,
    "addmm": _signature("input", "mat1", "mat2", beta=1, alpha=1),
    "baddbmm": _signature("input", "batch1", "batch2", beta=1, alpha=1),
    "einsum": _signature("equation", "operand"),  # and further ones
    "_grouped_mm": _signature("input", "mat2", offs=None, bias=None, out_dtype=None),
    "grouped_mm": _signature("mat_a", "mat_b", offs=None, bias=None, out_dtype=None),
    # normalisations
    "batch_norm": _signature(
        *("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
        "cudnn_enabled",
    ),
    "instance_norm": _signature(
        *("input", "weight", "bias", "running_mean", "running_var", "use_input_stats", "momentum", "eps"),
        "cudnn_enabled",
    ),
    "layer_norm": _signature(
        "input", "normalized_shape", weight=None, bias=None, eps=1e-5, cudnn_enable=True
    ),
    "group_norm": _signature("input", "num_groups", weight=None, bias=None, eps=1e-5, cudnn_enabled=True),
    "rms_norm": _signature("input", "normalized_shape", weight=None, eps=None),
    # recurrent layers and cells
    "lstm": _FUSED,
    "gru": _FUSED,
    "rnn_tanh": _FUSED,
    "rnn_relu": _FUSED,
    "lstm_cell": _CELL,
    "gru_cell": _CELL,
    "rnn_tanh_cell": _CELL,
    "rnn_relu_cell": _CELL,
    # attention
    "softmax": _SOFTMAX,
    "log_softmax": _SOFTMAX,
    "scaled_dot_product_attention": _signature(
        "query",
        "key",
        "value",
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        scale=None,
        enable_gqa=False,
    ),
    # activations with settings
    "leaky_relu": _signature("input", negative_slope=0.01),
    "elu": _signature("input", alpha=1, scale=1, input_scale=1),
    "celu": _signature("input", alpha=1.0),
    "prelu": _signature("input", "weight"),
    "rrelu": _signature("input", lower=1 / 8, upper=1 / 3, training=False, generator=None),
    "hardtanh": _signature("input", min_val=-1, max_val=1),
    "gelu": _signature("input", approximate="none"),
    "softplus": _signature("input", beta=1, threshold=20),
    "threshold": _signature("input", "threshold", "value"),
    "hardshrink": _signature("input", lambd=0.5),
    "softshrink": _signature("input", lambd=0.5),
    # arithmetic
    "add": _SUM,
    "sub": _SUM,
    "mul": _BINARY,
    "div": _BINARY,
    "rdiv": _BINARY,
    "pow": _signature("input", "exponent"),
    "clamp": _signature("input", min=None, max=None),
    "clamp_min": _signature("input", "min"),
    "clamp_max": _signature("input", "max"),
    "cat": _signature("tensors", dim=0),
    "stack": _signature("tensors", dim=0),
    # pooling
    "max_pool1d": _MAX_POOL,
    "max_pool2d": _MAX_POOL,
    "max_pool3d": _MAX_POOL,
    "max_pool1d_with_indices": _MAX_POOL,
    "max_pool2d_with_indices": _MAX_POOL,
    "max_pool3d_with_indices": _MAX_POOL,
    "avg_pool1d": _signature(
        "input", "kernel_size", stride=(), padding=0, ceil_mode=False, count_include_pad=True
    ),
    "avg_pool2d": _AVG_POOL,
    "avg_pool3d": _AVG_POOL,
    "adaptive_max_pool1d": _ADAPTIVE_POOL,
    "adaptive_max_pool2d": _ADAPTIVE_POOL,
    "adaptive_max_pool3d": _ADAPTIVE_POOL,
    "adaptive_avg_pool1d": _ADAPTIVE_POOL,
    "adaptive_avg_pool2d": _ADAPTIVE_POOL,
    "adaptive_avg_pool3d": _ADAPTIVE_POOL,
    "fractional_max_pool2d": _FRACTIONAL_POOL,
    "fractional_max_pool3d": _FRACTIONAL_POOL,
    # dropout
    "dropout": _DROPOUT,
    "feature_dropout": _DROPOUT,
    "alpha_dropout": _DROPOUT,
    "feature_alpha_dropout": _DROPOUT,
    "native_dropout": _DROPOUT,
    # losses
    "cross_entropy_loss": _signature(
        "input", "target", weight=None, reduction=1, ignore_index=-100, label_smoothing=0.0
    ),
    "nll_loss_nd": _CLASS_LOSS,
    "nll_loss": _CLASS_LOSS,
    "nll_loss2d": _CLASS_LOSS,
    "binary_cross_entropy": _signature("input", "target", weight=None, reduction=1),
    "binary_cross_entropy_with_logits": _signature(
        "input", "target", weight=None, pos_weight=None, reduction=1
    ),
    "mse_loss": _LOSS,
    "l1_loss": _LOSS,
    "smooth_l1_loss": _signature("input", "target", reduction=1, beta=1.0),
    "huber_loss": _signature("input", "target", reduction=1, delta=1.0),
    "kl_div": _signature("input", "target", reduction=1, log_target=False),
    "soft_margin_loss": _LOSS,
    "multilabel_margin_loss": _LOSS,
}


def bind(kind: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults included; NumPy's names for them become torch's.

    An argument that torch requires and the call lacks is not in it. KeyError for a kind without an entry.
    """
    names, defaults = SIGNATURES[kind]
    bound = dict(zip(names, args, strict=False))
    if len(bound) < len(names):
        bound = {**defaults, **bound}
    for name, value in kwargs.items():
        bound[_NUMPY.get(name, name)] = value
    return bound


def replace(
    kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str, value: Any
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The same call with another value for one argument, given by position or by keyword as before."""
    place = SIGNATURES[kind].names.index(name)
    if place < len(args):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}
