"""Whether a step sees those after it, told from the nodes of a graph: never wrongly."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from unvanish.probes.ahead import Steps

Part = Callable[[Tensor], Tensor]


def attend(x: Tensor, how: str) -> Tensor:
    """Four heads' attention, written out or torch's own."""
    n, steps, width = x.shape
    weights = torch.randn(width, 3 * width, generator=torch.Generator().manual_seed(0)) / width**0.5
    q, k, v = (p.view(n, steps, 2, -1).transpose(1, 2) for p in (x @ weights).split(width, -1))
    seen = torch.ones(steps, steps, dtype=torch.bool).tril()
    if how == "causal":
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    elif how == "mask":
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    elif how == "all":
        out = functional.scaled_dot_product_attention(q, k, v)
    else:
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        if how == "linear":
            out = scores.masked_fill(~seen, 0.0) @ v
        elif how == "linear, all":
            out = q @ (k.transpose(-2, -1) @ v)
        elif how == "over the queries":
            out = scores.masked_fill(~seen, -1e9).softmax(-2) @ v
        else:
            hidden = ~seen if how == "by hand" else seen.triu(1)
            out = functional.dropout(scores.masked_fill(hidden, float("-inf")).softmax(-1), 0.1) @ v
    return out.transpose(1, 2).reshape(n, steps, width)


def attend_few(x: Tensor, size: int) -> Tensor:
    """Attention whose keys and values are cut from one product, smaller than the queries."""
    weights = torch.randn(x.shape[2], 6 * size, generator=torch.Generator().manual_seed(0))
    q, k, v = (x @ weights).split([4 * size, size, size], -1)
    q = q.unflatten(-1, (4, size)).transpose(1, 2)
    k, v = (t.unsqueeze(1).expand_as(q) for t in (k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def turn(x: Tensor) -> Tensor:
    """Rotary positions and a root mean square norm, as in Llama."""
    angle = torch.arange(x.shape[1])[:, None] * torch.linspace(1, 0.1, x.shape[2])
    a, b = x.chunk(2, -1)
    x = x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def run(layer: nn.Module, *more: Tensor) -> Part:
    """A recurrent or an attention layer; what it gives first."""
    return lambda x: layer(x, *more)[0]


def build(width: int, steps: int) -> tuple[dict[str, Part], dict[str, Part]]:
    """Parts that leave the steps apart or look back, and parts that look ahead, or may."""
    torch.manual_seed(0)
    heads = nn.MultiheadAttention(width, 2, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(steps)
    layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.1, batch_first=True, norm_first=True)
    wide, mix, long = (
        nn.Linear(width, 4 * width),
        nn.Linear(steps, steps),
        nn.Conv1d(width, width, 3, padding=1),
    )
    back = nn.Linear(4 * width, width)
    whole = nn.LayerNorm((steps, width))
    apart: dict[str, Part] = {
        "feed-forward": lambda x: x + back(functional.gelu(wide(x))),
        "norm": nn.LayerNorm(width),
        "gate": lambda x: x * torch.sigmoid(x),
        "experts": lambda x: x * x[..., :2].softmax(-1).sum(-1, keepdim=True),
        "rotary": turn,
        "causal": lambda x: attend(x, "causal"),
        "mask": lambda x: attend(x, "mask"),
        "by hand": lambda x: attend(x, "by hand"),
        "linear": lambda x: attend(x, "linear"),
        "few keys": lambda x: attend_few(x, width // 4),
        "heads": lambda x: heads(x, x, x, attn_mask=mask, need_weights=False)[0],
        "layer": lambda x: layer(x, src_mask=mask, is_causal=True),
        "recurrent": run(nn.LSTM(width, width, batch_first=True)),
        "steps first": lambda x: wide(x.transpose(0, 1))[..., :width].transpose(0, 1),
    }
    ahead: dict[str, Part] = {
        "all": lambda x: attend(x, "all"),
        "no mask": lambda x: attend(x, "by hand, no mask"),
        "linear, all": lambda x: attend(x, "linear, all"),
        "over the queries": lambda x: attend(x, "over the queries"),
        "heads, all": lambda x: heads(x, x, x)[0],
        "both": run(nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)),
        "mixer": lambda x: mix(x.transpose(1, 2)).transpose(1, 2),
        "convolution": lambda x: long(x.transpose(1, 2)).transpose(1, 2),
        "flip": lambda x: x + x.flip(1),
        "roll": lambda x: x + x.roll(-1, 1),
        "mean": lambda x: x - x.mean(1, keepdim=True),
        "shares": lambda x: x * x.softmax(1),
        "norm over all": whole,
        "later": lambda x: torch.cat([x[:, 1:], x[:, :1]], 1),
        "scrambled": lambda x: x.reshape(len(x), width, steps).transpose(1, 2),
        "flat": lambda x: functional.linear(x.flatten(1), torch.ones(steps * width, steps * width)).view_as(
            x
        ),
    }
    return apart, ahead


def judge(parts: list[Part], samples: int, steps: int, width: int) -> tuple[bool, bool]:
    """What the nodes say, and whether a gradient from a later step is there."""
    x = torch.randn(samples, steps, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = x
    for part in parts:
        out = part(out)
    at = steps // 2 - 1
    said = Steps(steps, at).are_apart(out, [get_gradient_edge(x).node], width, width)
    (gradient,) = torch.autograd.grad((out[:, at] * torch.randn(width)).sum(), x)
    return said, bool(gradient[:, at + 1 :].any())


SIZES = [(3, 6, 8), (3, 8, 8), (8, 8, 4), (2, 4, 8), (1, 5, 4)]  # also where axes are of one size
NAMES = [list(parts) for parts in build(8, 6)]


@pytest.mark.parametrize(("samples", "steps", "width"), SIZES)
@pytest.mark.parametrize("name", NAMES[0])
def test_what_language_models_are_made_of_needs_no_backward(
    name: str, samples: int, steps: int, width: int
) -> None:
    part = build(width, steps)[0][name]
    assert judge([part], samples, steps, width) == (True, False)


@pytest.mark.parametrize(("samples", "steps", "width"), SIZES)
@pytest.mark.parametrize("name", NAMES[1])
def test_what_looks_ahead_is_never_said_not_to(name: str, samples: int, steps: int, width: int) -> None:
    part = build(width, steps)[1][name]
    assert judge([part], samples, steps, width) == (False, True)


def test_random_stacks_are_judged_as_their_gradients_are() -> None:
    draw = random.Random(0)
    for _ in range(40):
        size = draw.choice(SIZES)
        apart, ahead = build(size[2], size[1])
        parts = draw.sample(list(apart.values()), 3) + draw.sample(list(ahead.values()), draw.random() < 0.5)
        draw.shuffle(parts)
        said, seen = judge(parts, *size)
        assert said is not seen
