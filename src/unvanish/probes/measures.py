"""Numbers read off tensors: sizes, likeness of samples and tokens, weights, in float64.

Notable: likeness is measured on at most 64 samples and 4096 evenly spaced features, sizes on every element.
Products by NumPy's BLAS are small: from some size on its threads would compete with torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._C import _to_dlpack as to_dlpack

Numbers = NDArray[np.float64]

SAMPLES, FEATURES = 64, 4096
PIECE = 1 << 16  # elements whose norm is taken at once: their copy in float64 is small
FEW = 1 << 14  # elements of a tensor whose norm is taken together with others
ALIKE = 1e-4  # ||h - mean||^2 / ||h||^2, under which the difference of squares would be rounding
ORDINARY = (Tensor, nn.Parameter)
COMPRESSED = {torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
CPU = (1, 0)  # of DLPack
TOKENS = 64  # of a sequence that are compared
ONE_THREAD = 1 << 18  # multiplications in a matrix product, up to which BLAS takes one
LITTLE = 1 << 16  # elements that NumPy counts faster than torch begins to


def log_norm(x: Tensor) -> float:
    """Ln of the L2 norm, accumulated in float64; -inf for an exact zero, NaN or inf if x is not finite."""
    x = dense(x.detach() if x.requires_grad else x)
    if not x.is_floating_point():
        return math.nan
    return log_of(float(torch.linalg.vector_norm(x, dtype=torch.float64)))


def log_of(norm: float) -> float:
    """Ln of a norm; -inf for an exact zero, NaN or inf if it is not finite."""
    return math.log(norm) if norm > 0 and math.isfinite(norm) else -math.inf if norm == 0 else norm


def finite(x: Tensor) -> bool:
    """Whether every element is finite."""
    if is_quick(x):
        return bool(np.isfinite(see(x)).all())
    return bool(torch.isfinite(x.detach().sum())) or bool(torch.isfinite(x.detach()).all())


def read_presence(x: Tensor) -> tuple[bool, bool]:
    """Whether any element is not zero, and whether every one is finite; in one pass if both are so."""
    if x.is_floating_point() and 0 < float(torch.linalg.vector_norm(x.detach())) < math.inf:
        return True, True
    return bool(x.any()), finite(x)


def dense(x: Tensor) -> Tensor:
    """The real numbers of a tensor of any layout; zeros that a sparse one does not hold are left out."""
    if type(x) not in ORDINARY and hasattr(x, "to_local"):  # a DTensor: this process's part
        x = x.to_local()
    if x.layout is not torch.strided or x.is_nested:
        coordinates = x.layout is torch.sparse_coo
        x = x.coalesce().values() if coordinates else x.values() if _is_packed(x) else x.to_dense()
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def find_shape(x: Tensor) -> tuple[int, ...]:
    """The shape of a tensor; of a nested one the mean size where there are several."""
    if not x.is_nested:
        return tuple(x.shape)
    sizes = [_size(x, i) for i in range(x.dim())]
    known = math.prod(n for n in sizes if n)
    left = max(1, round(dense(x.detach()).numel() / max(1, known)))
    several = sizes.index(0) if 0 in sizes else -1
    return tuple(n or (left if i == several else 1) for i, n in enumerate(sizes))


def _size(x: Tensor, i: int) -> int:
    """One size of a nested tensor; 0 if there are several."""
    try:
        return int(x.size(i))
    except (RuntimeError, AttributeError):  # of a strided one, of a jagged one
        return 0


def _is_packed(x: Tensor) -> bool:
    return x.is_nested or x.layout in COMPRESSED


def samples(x: Tensor, batch: int | None) -> Tensor | None:
    """(B, features) of an activation, the batch dimension found by its size; None if it has none."""
    x = x.detach()
    if not batch or batch < 2 or x.ndim == 0 or x.numel() < batch * 2:
        return None
    if x.shape[0] == batch and x.ndim == 2:
        return x
    if x.shape[0] != batch:
        if x.ndim > 1 and x.shape[1] == batch:
            x = x.transpose(0, 1)
        elif x.shape[0] % batch == 0:
            return x.reshape(batch, -1)
        else:
            return None
    return x.reshape(batch, -1)


def thin(rows: Tensor) -> Numbers:
    """At most SAMPLES rows and FEATURES evenly spaced columns, in float64."""
    step = -(-rows.shape[1] // FEATURES)
    return _numbers(rows[:SAMPLES, min(step // 2, rows.shape[1] - 1) :: step])


def _numbers(x: Tensor) -> Numbers:
    return see(x.to("cpu", torch.float64))


def see(x: Tensor) -> NDArray[Any]:
    """A tensor's numbers as NumPy sees them, to be read only; no bfloat16.

    `x.numpy()` would forbid for ever that the tensor's storage is resized, as batches and offloaded or
    sharded weights are. It stays for tensors that nobody else holds.
    """
    x = x.detach()
    if x.is_conj() or x.is_neg():  # bits that NumPy would not see
        x = x.resolve_conj().resolve_neg()
    found: NDArray[Any] = np.from_dlpack(_Shown(x))
    return found


class _Shown:
    """A tensor handed over without the questions of `Tensor.__dlpack__`, which take as long again."""

    __slots__ = ("x",)

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __dlpack__(self, **_: Any) -> Any:
        return to_dlpack(self.x)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU


def activation_stats(x: Tensor, batch: int | None, tokens: bool = False) -> dict[str, float]:
    """Size, likeness of samples, and share of non-finite elements of one activation."""
    x = x.detach()
    if x.numel() == 0 or not x.is_floating_point():
        return {}
    if x.layout is not torch.strided or x.is_nested:
        x, batch = dense(x), None
    rows = samples(x, batch)
    some = None if rows is None else thin(rows)
    whole = some if some is not None and some.size == x.numel() else None
    squares = None if some is None else square_rows(some)
    norm = _norm(x) if whole is None or squares is None else math.sqrt(squares.sum())
    if not math.isfinite(norm):
        return size_stats(norm, x.numel(), float((~torch.isfinite(x)).double().mean()))
    found = size_stats(norm, x.numel())
    found["forward_max"] = _largest(x) if whole is None else max(-float(whole.min()), float(whole.max()))
    if some is not None and squares is not None and squares.any():
        found.update({name: value for name, (value,) in likeness(some[None], squares[None]).items()})
    if tokens and norm > 0 and has_tokens(x):
        found["token_cosine"] = token_cosine(x)
    return found


def size_stats(norm: float, size: int, bad: float = 0.0) -> dict[str, float]:
    """`forward_rms` of `size` elements, and `forward_nonfinite`, the share `bad`."""
    return {"forward_rms": norm / math.sqrt(size), "forward_nonfinite": bad}


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(dense(x), dtype=torch.float64))


def _largest(x: Tensor) -> float:
    low, high = torch.aminmax(x)
    return max(abs(float(low)), abs(float(high)))


def square_rows(x: Numbers) -> Numbers:
    """The sum of the squares of each row, x (..., F): dot products, each by one thread."""
    found: Numbers = np.matmul(x[..., None, :], x[..., :, None])[..., 0, 0]
    return found


def _add(factors: Numbers, x: Numbers) -> Numbers:
    """Sums of rows, factors (N, K, R) @ x (N, R, F), in parts that take one thread."""
    width = max(1, ONE_THREAD // math.prod(factors.shape[1:]))
    if x.shape[2] <= width:
        return factors @ x
    return np.concatenate([factors @ x[..., i : i + width] for i in range(0, x.shape[2], width)], axis=2)


def likeness(x: Numbers, squares: Numbers) -> dict[str, list[float]]:
    """`spread` ||h - mean|| / ||h|| and the mean `cosine` between rows of each of N activations, x (N, B, F).

    What else is read off the samples of an activation belongs here: small ones (`together`) get it too.
    `squares` (N, B): ||h||^2 of each row, not all zero. The cosine is NaN if only one row is not zero.
    """
    lengths, total = np.sqrt(squares), squares.sum(1)
    alive = lengths > 0
    count = alive.sum(1)
    factors = np.full((len(x), 2, x.shape[1]), 1 / x.shape[1])
    factors[:, 0] = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=alive)
    summed, mean = np.moveaxis(_add(factors, x), 1, 0)  # of the unit rows, and of all
    spread = 1 - x.shape[1] * np.einsum("nf,nf->n", mean, mean) / total  # ||h - mean||^2 / ||h||^2
    for i in np.flatnonzero(spread < ALIKE):
        apart = x[i] - mean[i]
        spread[i] = np.einsum("rf,rf->", apart, apart) / total[i]
    pairs = count * (count - 1.0)
    alike = np.einsum("nf,nf->n", summed, summed) - count
    cosine = np.divide(alike, pairs, out=np.full(len(x), math.nan), where=pairs > 0)
    return {"spread": np.sqrt(spread).tolist(), "cosine": cosine.tolist()}


def has_tokens(x: Tensor) -> bool:
    """Whether an activation may hold sequences of tokens, (B, T, D)."""
    return x.ndim == 3 and x.shape[1] > 1 and x.shape[2] >= 4


def token_cosine(x: Tensor) -> float:
    """Mean cosine between the tokens of a sample, x (B, T, D)."""
    return token_cosines(_numbers(x.detach()[None, :8, :: -(-x.shape[1] // TOKENS)]))[0]  # not all in float64


def token_cosines(x: Numbers) -> list[float]:
    """The same of each of N activations, x (N, B, T, D); of at most 8 samples and TOKENS tokens."""
    x = x[:, :8, :: -(-x.shape[2] // TOKENS)]
    norms = np.sqrt(square_rows(x))
    alive = norms > 0
    count = alive.sum(-1)
    unit = np.divide(1.0, norms, out=np.zeros_like(norms), where=alive)
    summed = np.einsum("nbt,nbtd->nbd", unit, x)  # the sum of the unit vectors
    pairs = count * (count - 1.0)
    keep = pairs > 0
    cosines = np.divide(square_rows(summed) - count, pairs, out=np.zeros_like(pairs), where=keep)
    samples = keep.sum(-1)
    found: list[float] = np.where(samples > 0, cosines.sum(-1) / np.maximum(samples, 1), math.nan).tolist()
    return found


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """The L2 norms of tensors, accumulated in float64; one transfer for each device."""
    found = [math.nan] * len(tensors)
    places: dict[torch.device, list[int]] = {}
    little: list[int] = []
    for i, x in enumerate(tensors):
        if x.is_cpu and x.dtype is torch.float32 and 0 < x.numel() <= FEW and _plain(x):
            little.append(i)
        elif (x.is_floating_point() or x.is_complex()) and not x.is_meta:
            places.setdefault(x.device, []).append(i)
    for i, norm in zip(little, _little([tensors[i] for i in little]), strict=True):
        found[i] = norm
    for own in places.values():
        with torch.no_grad():
            pieces = [_pieces(dense(tensors[i])) for i in own]
            each = torch._foreach_norm([p for some in pieces for p in some], 2, dtype=torch.float64)
        rest = iter(torch.stack(list(each)).tolist())
        for i, some in zip(own, pieces, strict=True):
            found[i] = next(rest) if len(some) == 1 else _join([next(rest) for _ in some])
    return found


def _plain(x: Tensor) -> bool:
    """Whether NumPy sees what torch sees."""
    return type(x) in ORDINARY and x.layout is torch.strided and not (x.is_neg() or x.is_nested)


def is_quick(x: Tensor) -> bool:
    """Whether NumPy sees what torch sees, and finishes before torch has woken its threads."""
    return x.is_cpu and x.numel() <= LITTLE and x.dtype in (torch.float32, torch.float64) and _plain(x)


def _little(tensors: Sequence[Tensor]) -> list[float]:
    """The norms of small tensors of float32, as one array."""
    if not tensors:
        return []
    with torch.no_grad():
        together = torch.cat([x.reshape(-1) for x in tensors])
    rows = together.numpy().astype(np.float64)
    rows *= rows
    found: list[float] = np.sqrt(_sums(rows, [x.numel() for x in tensors])).tolist()
    return found


def _sums(row: Numbers, sizes: Sequence[int]) -> Numbers:
    """The sums of neighbouring parts of a row, none of them empty."""
    found: Numbers = np.add.reduceat(row, np.cumsum([0, *sizes[:-1]]))
    return found


def _join(parts: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, parts)) else math.hypot(*parts)


@torch.no_grad()
def means(vectors: Sequence[Tensor]) -> list[float]:
    """The mean of each vector, on the CPU; none may be empty."""
    if not vectors:
        return []
    sizes = [x.numel() for x in vectors]
    rows = torch.cat([x.to(torch.float64) for x in vectors]).numpy()
    return [total / size for total, size in zip(_sums(rows, sizes).tolist(), sizes, strict=True)]


def _pieces(x: Tensor) -> Sequence[Tensor]:
    """A tensor in parts whose copy in float64 is small."""
    if x.numel() <= PIECE or not x.is_cpu or not x.is_contiguous():
        return (x,)
    parts: Sequence[Tensor] = torch.split(x.view(-1), PIECE)
    return parts


def weight_stats(weight: Tensor, outputs: int, norm: float | None = None) -> dict[str, float]:
    """`weight_log` = ln sqrt(||W||_F^2 / n_out) and `weight_rms` of a layer's weight; `norm`: if known."""
    norm = _norm(weight.detach()) if norm is None else norm
    if not (norm > 0 and math.isfinite(norm)):
        return {"weight_rms": norm / math.sqrt(max(1, weight.numel()))}
    return {
        "weight_log": math.log(norm) - 0.5 * math.log(outputs),
        "weight_rms": norm / math.sqrt(weight.numel()),
    }


def slope_stats(slopes: Tensor, peak: float | None) -> list[dict[str, float]]:
    """`slope_sq`, `dead`, and for squashing functions of largest slope `peak` `saturated`, from phi'(z).

    One for each of N activations of one shape, `slopes` (N, *shape).
    """
    if slopes.numel() == 0:
        return [{} for _ in slopes]
    if slopes.ndim == 1:  # of scalars
        slopes = slopes[:, None]
    size = slopes[0].numel()
    found = [{"slope_sq": squares / size} for squares in _row_squares(slopes.flatten(1))]
    if peak is not None:
        flat = slopes.abs() < 0.05 * peak
        for stats, saturated, pinned in zip(found, _shares(flat), _shares(_never(flat)), strict=True):
            stats.update(saturated=saturated, pinned=pinned)
    quick = slopes.is_cpu and slopes.dtype is not torch.bfloat16  # NumPy compares several times faster
    dead = _shares(_never(torch.from_numpy(see(slopes) == 0) if quick else slopes == 0))
    return [stats | {"dead": share} for stats, share in zip(found, dead, strict=True)]


def rectifier_stats(off: Tensor) -> list[dict[str, float]]:
    """The same of N rectifiers whose slope is one, but for where they are `off` (N, *shape)."""
    if off.numel() == 0:
        return [{} for _ in off]
    off = off[:, None] if off.ndim == 1 else off
    shares = zip(_shares(off), _shares(_never(off)), strict=True)
    return [{"slope_sq": 1 - share, "dead": dead} for share, dead in shares]


def _row_squares(rows: Tensor) -> list[float]:
    """The sum of the squares of each row; by NumPy if they are few, which wakes no other thread."""
    if is_quick(rows):
        x = see(rows).astype(np.float64)
        found: list[float] = np.einsum("nf,nf->n", x, x).tolist()
        return found
    return [norm**2 for norm in torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).tolist()]


def share(x: Tensor) -> float:
    """The share of elements that are not zero."""
    return int(np.count_nonzero(see(x)) if is_quick(x) else torch.count_nonzero(x)) / x.numel()


def _shares(flags: Tensor) -> list[float]:
    """`share` of each of (N, ...)."""
    rows = flags.flatten(1)
    counts = np.count_nonzero(rows.numpy(), 1) if flags.is_cpu else rows.sum(1)
    return [count / rows.shape[1] for count in counts.tolist()]


def _never(zero: Tensor) -> Tensor:
    """Which units are zero for every sample and position: channels of images, else the last dimension."""
    if zero.ndim <= 2:
        return zero
    gone = (1, *range(3, zero.ndim)) if zero.ndim >= 5 else tuple(range(1, zero.ndim - 1))
    return torch.from_numpy(np.all(zero.numpy(), gone)) if zero.is_cpu else torch.all(zero, gone)
