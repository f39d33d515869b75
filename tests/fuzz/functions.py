"""Functions that models seldom use: indices, sorting, linear algebra, complex numbers, views, in-place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.fuzz.kit import Do, register
from torch import nn


def _spd(w):
    return w @ w.mT + torch.eye(len(w), dtype=w.dtype)


def _matrix(d):
    return nn.Parameter(torch.randn(d, d) / d**0.5)


register(
    "vec",
    gather=lambda d, r: Do(lambda s, x: x.gather(1, s.a(x).argsort(1)), a=nn.Linear(d, d)),
    scatter=lambda d, r: Do(
        lambda s, x: torch.zeros_like(x).scatter_add(1, x.detach().argsort(1), s.a(x)), a=nn.Linear(d, d)
    ),
    index_add=lambda d, r: Do(
        lambda s, x: torch.zeros_like(x).index_add(0, torch.arange(len(x)) // 2, s.a(x)), a=nn.Linear(d, d)
    ),
    index_put=lambda d, r: Do(_put, a=nn.Linear(d, d)),
    masked=lambda d, r: Do(lambda s, x: x.masked_fill(x.abs() > 3, 0.0)),
    masked_scatter=lambda d, r: Do(lambda s, x: x.masked_scatter(x > 0, s.a(x)), a=nn.Linear(d, d)),
    where=lambda d, r: Do(lambda s, x: torch.where(x > 0, s.a(x), x), a=nn.Linear(d, d)),
    sort=lambda d, r: Do(lambda s, x: s.a(x.sort(-1).values), a=nn.Linear(d, d)),
    topk=lambda d, r: Do(lambda s, x: s.a(x.topk(d // 2)[0]), a=nn.Linear(d // 2, d)),
    median=lambda d, r: Do(lambda s, x: x - x.median(1, keepdim=True).values),
    kthvalue=lambda d, r: Do(lambda s, x: x + x.kthvalue(2, 1, keepdim=True)[0]),
    cumulated=lambda d, r: Do(lambda s, x: x.cumsum(-1) / d + x.cummax(-1)[0]),
    cumprod=lambda d, r: Do(lambda s, x: x.tanh().cumprod(-1) + s.a(x), a=nn.Linear(d, d)),
    solve=lambda d, r: Do(lambda s, x: torch.linalg.solve(_spd(s.w), x.mT).mT, w=_matrix(d)),
    cholesky=lambda d, r: Do(lambda s, x: x @ torch.linalg.cholesky(_spd(s.w)), w=_matrix(d)),
    inverse=lambda d, r: Do(lambda s, x: x @ torch.linalg.inv(_spd(s.w)), w=_matrix(d)),
    slogdet=lambda d, r: Do(lambda s, x: x * torch.linalg.slogdet(_spd(s.w))[1] / d, w=_matrix(d)),
    matrix_exp=lambda d, r: Do(lambda s, x: x @ torch.matrix_exp(0.1 * (s.w - s.w.mT)), w=_matrix(d)),
    eigh=lambda d, r: Do(lambda s, x: x * torch.linalg.eigvalsh(_spd(s.w)), w=_matrix(d)),
    triangular=lambda d, r: Do(
        lambda s, x: torch.linalg.solve_triangular(s.w.tril(-1) + torch.eye(d), x.mT, upper=False).mT,
        w=_matrix(d),
    ),
    kronecker=lambda d, r: Do(
        lambda s, x: x @ torch.kron(s.a, torch.eye(d // 2)), a=nn.Parameter(torch.randn(2, 2))
    ),
    fourier=lambda d, r: Do(
        lambda s, x: torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(s.f), n=d),
        f=nn.Parameter(torch.randn(d // 2 + 1, 2)),
    ),
    complex_layer=lambda d, r: Do(
        lambda s, x: torch.view_as_real(s.a(torch.complex(x[:, ::2], x[:, 1::2]))).flatten(1),
        a=nn.Linear(d // 2, d // 2, dtype=torch.cfloat),
    ),
    magnitude=lambda d, r: Do(
        lambda s, x: (x.to(torch.cfloat) @ s.w).abs(),
        w=nn.Parameter(torch.randn(d, d, dtype=torch.cfloat) / d),
    ),
    polar=lambda d, r: Do(lambda s, x: torch.polar(x.abs(), x).real + torch.polar(x.abs(), x).imag),
    conjugate=lambda d, r: Do(
        lambda s, x: (s.a(x.to(torch.cfloat)).conj() * x).imag, a=nn.Linear(d, d, dtype=torch.cfloat)
    ),
    in_place=lambda d, r: Do(_in_place, a=nn.Linear(d, d)),
    slice_writing=lambda d, r: Do(_write_slices, a=nn.Linear(d, d // 2)),
    filled=lambda d, r: Do(_fill, a=nn.Linear(d, d)),
    chunks=lambda d, r: Do(
        lambda s, x: torch.cat([s.a(h) for h in x.chunk(2, 1)], 1), a=nn.Linear(d // 2, d // 2)
    ),
    splits=lambda d, r: Do(lambda s, x: torch.cat(x.split([1, d - 1], 1)[::-1], 1)),
    unbound=lambda d, r: Do(
        lambda s, x: torch.stack([c * g for c, g in zip(x.unbind(1), s.g, strict=True)], 1),
        g=nn.Parameter(torch.ones(d)),
    ),
    strided=lambda d, r: Do(
        lambda s, x: x.as_strided((len(x), d), (x.stride(0), x.stride(1))) * s.g,
        g=nn.Parameter(torch.ones(d)),
    ),
    rolled=lambda d, r: Do(lambda s, x: x.roll(1, -1) + x.flip(-1)),
    diagonal=lambda d, r: Do(
        lambda s, x: torch.diag_embed(x).diagonal(dim1=1, dim2=2) * s.w.diagonal(), w=_matrix(d)
    ),
    triangle=lambda d, r: Do(lambda s, x: x @ s.w.tril() @ s.w.triu(), w=_matrix(d)),
    distances=lambda d, r: Do(lambda s, x: (-torch.cdist(x, s.c)).exp(), c=nn.Parameter(torch.randn(d, d))),
    cosine=lambda d, r: Do(
        lambda s, x: x * F.cosine_similarity(x, s.c, dim=-1)[:, None], c=nn.Parameter(torch.randn(d))
    ),
    scalar=lambda d, r: Do(lambda s, x: x * s.g.exp() + x.mean() + x.std(), g=nn.Parameter(torch.zeros(()))),
    empty_slice=lambda d, r: Do(lambda s, x: torch.cat([s.a(x[:0]), s.a(x)], 0), a=nn.Linear(d, d)),
    empty_columns=lambda d, r: Do(
        lambda s, x: x + F.linear(x[:, :0], s.w), w=nn.Parameter(torch.zeros(d, 0))
    ),
    expanded=lambda d, r: Do(lambda s, x: x * s.w.expand(len(x), d), w=nn.Parameter(torch.randn(1, d))),
    quantised=lambda d, r: Do(lambda s, x: x + ((x * 4).round() / 4 - x).detach()),
    fake_quantised=lambda d, r: Do(
        lambda s, x: torch.fake_quantize_per_tensor_affine(s.a(x), 0.1, 0, -128, 127), a=nn.Linear(d, d)
    ),
    gumbel=lambda d, r: Do(lambda s, x: F.gumbel_softmax(x, hard=s.hard) * d, hard=r.random() < 0.5),
    sampled_normal=lambda d, r: Do(
        lambda s, x: torch.distributions.Normal(s.a(x), F.softplus(s.b(x))).rsample(),
        a=nn.Linear(d, d),
        b=nn.Linear(d, d),
    ),
    reparametrised=lambda d, r: Do(
        lambda s, x: x + torch.randn_like(x) * s.g.exp(), g=nn.Parameter(torch.zeros(d))
    ),
    lookup=lambda d, r: Do(
        lambda s, x: x + s.e(x.abs().sum(1).long() % 7), e=nn.Embedding(7, d, padding_idx=0)
    ),
    sparse_lookup=lambda d, r: Do(lambda s, x: x + s.e(x.argmax(1)), e=nn.Embedding(d, d, sparse=True)),
    dead_lookup=lambda d, r: Do(lambda s, x: x + 0 * s.e(x.argmax(1)), e=nn.Embedding(d, d, sparse=True)),
    bag=lambda d, r: Do(
        lambda s, x: x + s.e(x.argsort(1)[:, :3]),
        e=nn.EmbeddingBag(d, d, mode=r.choice(["sum", "mean", "max"])),
    ),
    sparse_bag=lambda d, r: Do(
        lambda s, x: x + s.e(x.argsort(1)[:, :3]), e=nn.EmbeddingBag(d, d, mode="sum", sparse=True)
    ),
    offset_bag=lambda d, r: Do(
        lambda s, x: x + s.e(x.argsort(1).flatten(), torch.arange(len(x)) * d), e=nn.EmbeddingBag(d, d)
    ),
    renormed_lookup=lambda d, r: Do(lambda s, x: x + s.e(x.argmax(1)), e=nn.Embedding(d, d, max_norm=1.0)),
    sparse_product=lambda d, r: Do(
        lambda s, x: torch.sparse.mm(s.m, x.mT).mT + s.a(x), m=torch.eye(d).to_sparse(), a=nn.Linear(d, d)
    ),
    sparse_weight=lambda d, r: Do(
        lambda s, x: torch.sparse.mm((s.w * s.k).to_sparse(), x.mT).mT, w=_matrix(d), k=torch.eye(d)
    ),
    bucketed=lambda d, r: Do(
        lambda s, x: x * s.t[torch.bucketize(x.detach(), s.edges)],
        t=nn.Parameter(torch.ones(4)),
        edges=torch.tensor([-1.0, 0, 1]),
    ),
    unique=lambda d, r: Do(
        lambda s, x: x * s.t[torch.unique(x.argmax(1), return_inverse=True)[1]][:, None],
        t=nn.Parameter(torch.ones(d)),
    ),
    nonzero=lambda d, r: Do(lambda s, x: x.index_put(tuple((x > 0).nonzero().T), x[x > 0].sqrt())),
    histogram=lambda d, r: Do(
        lambda s, x: x + torch.bincount(x.argmax(1), minlength=d) * s.g, g=nn.Parameter(torch.ones(()))
    ),
    special=lambda d, r: Do(
        lambda s, x: torch.special.erf(x) + torch.special.expit(x) + torch.sinc(x) + torch.lgamma(x.abs() + 1)
    ),
    powers=lambda d, r: Do(lambda s, x: (x.abs() + 0.1) ** s.p, p=nn.Parameter(torch.ones(d))),
    vector_norms=lambda d, r: Do(lambda s, x: x / (1 + torch.linalg.vector_norm(x, dim=1, keepdim=True))),
    pinned_mean=lambda d, r: Do(lambda s, x: x - x.mean(0, keepdim=True).detach()),
    trapezoid=lambda d, r: Do(
        lambda s, x: x + torch.trapezoid(x, dim=1)[:, None] + torch.diff(x, dim=1, append=x[:, :1])
    ),
    tensordot=lambda d, r: Do(lambda s, x: torch.tensordot(x, s.w, ([1], [0])), w=_matrix(d)),
    multi_dot=lambda d, r: Do(lambda s, x: torch.linalg.multi_dot([x, s.w, s.w]), w=_matrix(d)),
    baddbmm=lambda d, r: Do(
        lambda s, x: torch.baddbmm(s.b, x[None], s.w[None])[0], b=nn.Parameter(torch.zeros(d)), w=_matrix(d)
    ),
    vander=lambda d, r: Do(
        lambda s, x: s.a(torch.stack([x.tanh() ** k for k in range(3)], -1)).squeeze(-1), a=nn.Linear(3, 1)
    ),
    numpy_read=lambda d, r: Do(lambda s, x: x * float(x.detach().numpy().std() + 1)),
    item_read=lambda d, r: Do(lambda s, x: x / (1 + x.detach().abs().max().item())),
    listed=lambda d, r: Do(lambda s, x: x + torch.tensor(x.mean(1).tolist())[:, None]),
    data_read=lambda d, r: Do(lambda s, x: x - x.data.mean()),
)


def _put(s, x):
    y = s.a(x).clone()
    y[torch.arange(len(x)), x.argmax(1)] += x.amax(1)
    return y


def _in_place(s, x):
    y = s.a(x)
    y += x
    y.mul_(0.5).add_(1).clamp_(-5, 5)
    return y


def _write_slices(s, x):
    y = x.new_zeros(x.shape)
    y[:, ::2] = s.a(x)
    y[:, 1::2].copy_(x[:, 1::2])
    return y


def _fill(s, x):
    y = s.a(x)
    y[:, 0].zero_()
    y[:, -1] = 1.0
    return y
