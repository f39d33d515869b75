"""Rows as a vector times a power of two: nothing underflows or overflows, at no loss of accuracy."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ABSENT = -(2.0**50)  # the exponent of an exact zero: below every other, and still exact to add to
COMFORT = 2.0**200  # a gradient this large, or this small, is renormalised before it goes on


class Scaled(NamedTuple):
    """Rows `value * 2**exponent`: value (..., D) and exponent (...), both float64."""

    value: Tensor
    exponent: Tensor


def rescale(value: Tensor, exponent: Tensor | None = None) -> Scaled:
    """The same rows with their largest element in [1/2, 1)."""
    size = value.abs().amax(-1)
    shift = torch.frexp(size).exponent.clamp(-1000, 1000).to(value.dtype)
    total = shift if exponent is None else exponent + shift
    return Scaled(value * torch.exp2(-shift)[..., None], torch.where(size == 0, ABSENT, total))


def add(a: Scaled, b: Scaled) -> Scaled:
    """The sum of two sets of rows."""
    top = torch.maximum(a.exponent, b.exponent)
    left, right = (s.value * torch.exp2(s.exponent - top)[..., None] for s in (a, b))
    return rescale(left + right, top)


def is_comfortable(size: Tensor) -> bool:
    """Whether every row's norm is so far from the limits of float64 that a step cannot leave them."""
    low, high = torch.aminmax(size)
    return float(low) > 1 / COMFORT and float(high) < COMFORT


def bound(rows: Tensor) -> Scaled:
    """The rows as they are if all of them are in the comfortable range or zero; else scaled."""
    size = rows.abs().amax(-1)
    none = size == 0
    fits = ((size > 1 / COMFORT) & (size < COMFORT)) | none
    return Scaled(rows, none * ABSENT) if bool(fits.all()) else rescale(rows)


def drop_exponents(rows: Scaled) -> Tensor | None:
    """The rows without exponents if all of them are in the comfortable range or zero; else None."""
    none = rows.exponent == ABSENT
    if bool((none | (rows.exponent == 0)).all()):
        return rows.value
    middling = none | (rows.exponent.abs() < math.log2(COMFORT))
    return rows.value * torch.exp2(rows.exponent)[:, None] if bool(middling.all()) else None
