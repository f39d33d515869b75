"""What half precision costs: the gradients again in float32, and which loss scales the dtype can hold.

Notable: the loss's scale does not matter. The best power of two is found, as a GradScaler would; only what no
scale can save counts as flushed or overflowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.facts import PrecisionFacts
from unvanish.probes import calls
from unvanish.probes.copies import copy_model
from unvanish.probes.layers import name_parameters

HALF = {"float16": torch.float16}  # bfloat16 has the range of float32


def twin(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module | None:
    """A deep copy in another dtype; None if the model cannot be copied."""
    try:
        return copy_model(model).to(dtype)
    except Exception:
        return None


def exact(
    model: nn.Module, batch: Any, loss: Any, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor] | None:
    """The parameters' gradients in a wider dtype; None if the model does not run in it."""
    wide = twin(model, dtype)
    if wide is None:
        return None
    try:
        call = calls.prepare(_widen(batch, dtype), loss, gradients=False)
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            value = call.objective(call.run(wide))
        named = {n: p for n, p in name_parameters(wide).items() if p.requires_grad}
        found = torch.autograd.grad(value.sum(), list(named.values()), allow_unused=True)
    except Exception:
        return None
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


def _widen(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if type(batch) in (tuple, list, calls.Targets):
        return type(batch)(_widen(b, dtype) for b in batch)
    return {k: _widen(v, dtype) for k, v in batch.items()} if isinstance(batch, Mapping) else batch


def compare(name: str, gradients: Mapping[str, Tensor], native: Callable[[float], bool]) -> PrecisionFacts:
    """How a dtype would hold these gradients at its best loss scale.

    `native(scale)`: whether it holds them at this log2 of the loss scale.
    """
    info = torch.finfo(HALF[name])
    finite = all(bool(torch.isfinite(g).all()) for g in gradients.values())
    facts: PrecisionFacts = {"dtype": name, "finite_in_float32": finite}
    if not finite or not gradients:
        return facts
    peak = max((float(g.abs().max()) for g in gradients.values() if g.numel()), default=0.0)
    if peak == 0:
        return facts
    high = math.floor(math.log2(info.max) - math.log2(peak)) - 1
    tiny = info.smallest_normal * info.eps / 2
    facts["flushed"] = _share(gradients, tiny * 2.0**-high)
    low = next((k for k in range(high, high - 64, -1) if _share(gradients, tiny * 2.0**-k) > 0.01), high - 64)
    facts["best_scale_log2"], facts["range"] = (
        float(high),
        (float(low + 1), float(high)) if low < high else None,
    )
    facts["nonfinite_native"] = not any(native(k) for k in _scales(high))
    facts["overflowed"] = 1.0 if facts["nonfinite_native"] else 0.0
    return facts


def _scales(high: int) -> Iterator[float]:
    yield 0.0
    yield from (float(high - back) for back in (4, 8, 12, 18, 24))


def _share(gradients: Mapping[str, Tensor], limit: float) -> float:
    """Share of the non-zero elements under a limit."""
    nonzero = sum(int(torch.count_nonzero(g)) for g in gradients.values())
    under = sum(int(((g.abs() < limit) & (g != 0)).sum()) for g in gradients.values())
    return under / nonzero if nonzero else 0.0
