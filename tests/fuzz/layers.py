"""Ordinary layers: linear, convolutional, normalising, pooling, recurrent, attention, and functional code."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from tests.fuzz.kit import Do, register
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

ACTIVATIONS = [
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Mish),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.Softsign),
    *(nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.LogSigmoid, nn.Identity),
]

register(
    "vec",
    linear=lambda d, r: nn.Linear(d, d, bias=r.random() < 0.8),
    activation=lambda d, r: r.choice(ACTIVATIONS)(),
    threshold=lambda d, r: nn.Threshold(0.1, r.choice([0.0, 1.0])),
    inplace_activation=lambda d, r: nn.Sequential(
        nn.Linear(d, d), r.choice([nn.ReLU, nn.ELU, nn.SiLU, nn.Hardtanh])(inplace=True)
    ),
    layer_norm=lambda d, r: nn.LayerNorm(d, elementwise_affine=r.random() < 0.7),
    rms_norm=lambda d, r: nn.RMSNorm(d),
    batch_norm=lambda d, r: nn.BatchNorm1d(d, affine=r.random() < 0.7, track_running_stats=r.random() < 0.7),
    group_norm=lambda d, r: nn.GroupNorm(2, d),
    dropout=lambda d, r: r.choice([nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout])(0.2),
    residual=lambda d, r: Do(lambda s, x: x + s.a(x), a=nn.Sequential(nn.Linear(d, d), nn.Tanh())),
    bilinear=lambda d, r: Do(lambda s, x: s.b(x, x), b=nn.Bilinear(d, d, d)),
    matmul=lambda d, r: Do(lambda s, x: x @ s.w, w=nn.Parameter(torch.randn(d, d) / d**0.5)),
    einsum=lambda d, r: Do(
        lambda s, x: torch.einsum("bi,ij->bj", x, s.w), w=nn.Parameter(torch.randn(d, d) / d**0.5)
    ),
    addmm=lambda d, r: Do(
        lambda s, x: torch.addmm(s.c, x, s.w), c=nn.Parameter(torch.zeros(d)), w=nn.Parameter(torch.eye(d))
    ),
    scale=lambda d, r: Do(lambda s, x: x * s.g, g=nn.Parameter(torch.ones(()))),
    softmax=lambda d, r: Do(lambda s, x: x.softmax(-1) * d),
    glu=lambda d, r: Do(lambda s, x: F.glu(s.a(x)), a=nn.Linear(d, 2 * d)),
    swiglu=lambda d, r: Do(
        lambda s, x: s.c(F.silu(s.a(x)) * s.b(x)), a=nn.Linear(d, d), b=nn.Linear(d, d), c=nn.Linear(d, d)
    ),
    experts=lambda d, r: Do(
        lambda s, x: sum(p[:, None] * e(x) for p, e in zip(s.g(x).softmax(-1).unbind(-1), s.e, strict=True)),
        g=nn.Linear(d, 3),
        e=nn.ModuleList([nn.Linear(d, d) for _ in range(3)]),
    ),
    normalize=lambda d, r: Do(lambda s, x: F.normalize(x, dim=-1) * math.sqrt(d)),
    cell=lambda d, r: Do(
        lambda s, x: s.c(x) if not isinstance(s.c, nn.LSTMCell) else s.c(x)[0],
        c=r.choice([nn.RNNCell, nn.GRUCell, nn.LSTMCell])(d, d),
    ),
)
register(
    "vec>seq",
    tokens=lambda d, r: Do(lambda s, x: s.a(x).view(len(x), 4, d), a=nn.Linear(d, 4 * d)),
    repeated=lambda d, r: Do(
        lambda s, x: x[:, None].expand(-1, 4, -1) + s.p, p=nn.Parameter(torch.randn(4, d) * 0.1)
    ),
    stacked=lambda d, r: Do(
        lambda s, x: torch.stack([m(x) for m in s.m], 1), m=nn.ModuleList([nn.Linear(d, d) for _ in range(4)])
    ),
)
register(
    "vec>img",
    painted=lambda d, r: Do(
        lambda s, x: s.a(x)[:, :, None, None].expand(-1, -1, 6, 6) + s.p,
        a=nn.Linear(d, d),
        p=nn.Parameter(torch.randn(d, 6, 6) * 0.1),
    ),
    unfolded=lambda d, r: Do(
        lambda s, x: s.c(s.a(x).view(len(x), d, 3, 3)),
        a=nn.Linear(d, 9 * d),
        c=nn.ConvTranspose2d(d, d, 2, 2),
    ),
)
register(
    "seq",
    seq_linear=lambda d, r: nn.Linear(d, d),
    conv1d=lambda d, r: Do(
        lambda s, x: s.c(x.transpose(1, 2)).transpose(1, 2),
        c=nn.Conv1d(d, d, 3, padding=1, groups=r.choice([1, 2])),
    ),
    recurrent=lambda d, r: Do(
        lambda s, x: s.r(x)[0],
        r=r.choice([nn.RNN, nn.LSTM, nn.GRU])(
            d, d, batch_first=True, num_layers=r.choice([1, 2]), dropout=r.choice([0.0, 0.0])
        ),
    ),
    bidirectional=lambda d, r: Do(
        lambda s, x: s.r(x)[0], r=r.choice([nn.LSTM, nn.GRU])(d, d // 2, batch_first=True, bidirectional=True)
    ),
    projected=lambda d, r: Do(
        lambda s, x: s.k(s.r(x)[0]),
        r=nn.LSTM(d, d, batch_first=True, proj_size=d // 2),
        k=nn.Linear(d // 2, d),
    ),
    packed=lambda d, r: Do(_packed, r=r.choice([nn.RNN, nn.LSTM, nn.GRU])(d, d, batch_first=True)),
    cell_loop=lambda d, r: Do(_loop, c=r.choice([nn.GRUCell, nn.RNNCell])(d, d)),
    lstm_loop=lambda d, r: Do(_lstm_loop, c=nn.LSTMCell(d, d)),
    attention=lambda d, r: Do(
        lambda s, x: s.a(x, x, x, need_weights=s.w)[0],
        a=nn.MultiheadAttention(d, 2, dropout=r.choice([0.0, 0.1]), batch_first=True),
        w=r.random() < 0.5,
    ),
    encoder=lambda d, r: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(d, 2, 2 * d, batch_first=True, norm_first=r.random() < 0.5),
        r.choice([1, 2]),
        enable_nested_tensor=False,
    ),
    decoder=lambda d, r: Do(
        lambda s, x: s.m(x, x * 0.5), m=nn.TransformerDecoderLayer(d, 2, 2 * d, batch_first=True)
    ),
    transformer=lambda d, r: Do(
        lambda s, x: s.m(x, x), m=nn.Transformer(d, 2, 1, 1, 2 * d, batch_first=True)
    ),
    fused_attention=lambda d, r: Do(
        lambda s, x: (
            F.scaled_dot_product_attention(
                *(p(x).view(len(x), -1, 2, d // 2).transpose(1, 2) for p in s.p), is_causal=s.c
            )
            .transpose(1, 2)
            .flatten(2)
        ),
        p=nn.ModuleList([nn.Linear(d, d) for _ in range(3)]),
        c=r.random() < 0.5,
    ),
    masked_attention=lambda d, r: Do(
        lambda s, x: F.scaled_dot_product_attention(
            s.q(x), x, x, attn_mask=torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        ),
        q=nn.Linear(d, d),
    ),
    own_attention=lambda d, r: Do(
        lambda s, x: torch.softmax(s.q(x) @ s.k(x).mT / d**0.5, -1) @ s.v(x),
        q=nn.Linear(d, d),
        k=nn.Linear(d, d),
        v=nn.Linear(d, d),
    ),
    grouped_attention=lambda d, r: Do(
        lambda s, x: (
            F.scaled_dot_product_attention(
                s.q(x).view(len(x), -1, 2, d // 2).transpose(1, 2),
                *(x[:, None, :, : d // 2],) * 2,
                enable_gqa=True,
            )
            .transpose(1, 2)
            .flatten(2)
        ),
        q=nn.Linear(d, d),
    ),
    seq_norm=lambda d, r: nn.LayerNorm(d),
    seq_flip=lambda d, r: Do(lambda s, x: s.a(x.flip(1)), a=nn.Linear(d, d)),
    scan=lambda d, r: Do(lambda s, x: torch.cumsum(s.a(x), 1) / x.shape[1], a=nn.Linear(d, d)),
    mixer=lambda d, r: Do(lambda s, x: x + s.w(x.mT).mT if x.shape[1] == 4 else x, w=nn.Linear(4, 4)),
)
register(
    "seq>vec",
    mean=lambda d, r: Do(lambda s, x: x.mean(1)),
    last=lambda d, r: Do(lambda s, x: x[:, -1]),
    maximum=lambda d, r: Do(lambda s, x: x.max(1).values),
    last_state=lambda d, r: Do(lambda s, x: s.r(x)[1][-1], r=nn.GRU(d, d, batch_first=True)),
    last_states=lambda d, r: Do(lambda s, x: sum(s.r(x)[1])[-1], r=nn.LSTM(d, d, batch_first=True)),
    logsumexp=lambda d, r: Do(lambda s, x: x.logsumexp(1)),
    query=lambda d, r: Do(
        lambda s, x: s.a(s.q.expand(len(x), 1, d), x, x)[0][:, 0],
        a=nn.MultiheadAttention(d, 2, batch_first=True),
        q=nn.Parameter(torch.randn(1, 1, d)),
    ),
)
register(
    "img",
    conv2d=lambda d, r: nn.Conv2d(
        d,
        d,
        3,
        padding=1,
        groups=r.choice([1, 1, d]),
        padding_mode=r.choice(["zeros", "circular", "reflect"]),
    ),
    conv_transposed=lambda d, r: nn.ConvTranspose2d(d, d, 3, padding=1),
    conv3d=lambda d, r: Do(
        lambda s, x: s.c(x.reshape(len(x), d, 2, 3, 6)).reshape(x.shape), c=nn.Conv3d(d, d, 3, padding=1)
    ),
    img_batch_norm=lambda d, r: nn.BatchNorm2d(d),
    img_instance_norm=lambda d, r: nn.InstanceNorm2d(
        d, affine=r.random() < 0.5, track_running_stats=r.random() < 0.3
    ),
    img_group_norm=lambda d, r: nn.GroupNorm(4, d),
    response_norm=lambda d, r: nn.LocalResponseNorm(2),
    pooled=lambda d, r: Do(
        lambda s, x: F.interpolate(s.p(x), size=(6, 6), mode=s.m),
        p=r.choice([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LPPool2d(2, 2), nn.AdaptiveMaxPool2d(3)]),
        m=r.choice(["nearest", "bilinear", "bicubic"]),
    ),
    unpooled=lambda d, r: Do(lambda s, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
    shuffled=lambda d, r: Do(lambda s, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2)),
    sampled=lambda d, r: Do(
        lambda s, x: F.grid_sample(
            x, F.affine_grid(s.t.expand(len(x), 2, 3), list(x.shape), False), align_corners=False
        ),
        t=nn.Parameter(torch.eye(2, 3)),
    ),
    img_dropout=lambda d, r: nn.Dropout2d(0.1),
    depthwise=lambda d, r: nn.Sequential(
        nn.Conv2d(d, d, 3, padding=1, groups=d), nn.Conv2d(d, d, 1), nn.ReLU6()
    ),
    img_residual=lambda d, r: Do(
        lambda s, x: F.relu_(s.b(x) + x), b=nn.Sequential(nn.Conv2d(d, d, 3, padding=1), nn.BatchNorm2d(d))
    ),
    folded=lambda d, r: Do(
        lambda s, x: F.fold(s.a(F.unfold(x, 3, padding=1).mT).mT, (6, 6), 3, padding=1) / 9,
        a=nn.Linear(9 * d, 9 * d),
    ),
    squeezed=lambda d, r: Do(
        lambda s, x: x * s.a(x.mean((2, 3))).sigmoid()[:, :, None, None], a=nn.Linear(d, d)
    ),
    channels_last=lambda d, r: Do(
        lambda s, x: s.c(x.to(memory_format=torch.channels_last)), c=nn.Conv2d(d, d, 1)
    ),
)
register(
    "img>vec",
    averaged=lambda d, r: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    flattened=lambda d, r: nn.Sequential(nn.Flatten(), nn.Linear(36 * d, d)),
    highest=lambda d, r: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
)
register("img>seq", patches=lambda d, r: Do(lambda s, x: s.c(x).flatten(2).mT, c=nn.Conv2d(d, d, 3, 3)))
register(
    "seq>img",
    drawn=lambda d, r: Do(lambda s, x: s.a(x.mean(1)).view(len(x), d, 6, 6), a=nn.Linear(d, 36 * d)),
)


def _packed(s, x):
    lengths = torch.arange(len(x)) % x.shape[1] + 1
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(s.r(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def _loop(s, x):
    h = x.new_zeros(len(x), x.shape[2])
    found = []
    for step in x.unbind(1):
        h = s.c(step, h)
        found.append(h)
    return torch.stack(found, 1)


def _lstm_loop(s, x):
    state, found = None, []
    for step in x.unbind(1):
        state = s.c(step, state)
        found.append(state[0])
    return torch.stack(found, 1)
