"""The sites of a watched network, chosen evenly from what its first forward went through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import NodeFacts
from unvanish.core.trace import Axis, Site
from unvanish.probes import graph, operations

SAMPLES, POSITIONS, UNITS = 8, 8, 64  # of an activation, evenly spaced
MOST = 64  # sites of each kind: depth axis, activations, attentions

Key = tuple[str, str, int]


@dataclass
class Slot:
    """One site: its row, its kind, and the shape of the part that is copied of its activation."""

    row: int
    key: Key
    family: str
    shape: tuple[int, ...] = (1, 1, 1)
    numel: int = 1
    low: bool = False  # float16
    came: bool = False  # whether its gradient came, in this look

    def part(self, buffer: Tensor) -> Tensor:
        """The part of a buffer (sites, SAMPLES, POSITIONS, UNITS) that this site fills, in its own shape."""
        return fit(buffer[self.row], self.shape)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Samples, positions and units of the copied part."""
        return self.shape[0], math.prod(self.shape[1:-1]), self.shape[-1]


@dataclass(frozen=True)
class Crossing:
    """A result that the mapping forward went through: it may become a site."""

    key: Key
    family: str
    node: Any
    shape: tuple[int, ...]
    low: bool = False  # float16


@dataclass(frozen=True)
class Chart:
    """The sites of a network, in the order of its forward, and its depth axis."""

    slots: dict[Key, Slot] = field(default_factory=dict)
    sites: tuple[Site, ...] = ()
    axis: Axis | None = None


def draw_chart(crossings: Sequence[Crossing], end: Any) -> Chart:
    """Choose the sites: evenly over the depth axis, the activations and the attentions."""
    nodes = {c.node: c for c in reversed(crossings) if c.node is not None}  # the innermost of equals
    above = graph.walk(end)
    first = next((c.node for c in crossings if c.node in above.index), None)
    cuts = above.cuts(above.index[first]) if first is not None else []
    chain = [nodes[above.nodes[i]] for i in cuts if above.nodes[i] in nodes]
    axis = [chain[i] for i in spread(len(chain), MOST)]
    firing = [c for c in crossings if c.family == "activation"]
    attending = [c for c in crossings if c.family in ("attention", "router")]
    chosen = {c.key for c in axis} | {firing[i].key for i in spread(len(firing), MOST)}
    chosen |= {attending[i].key for i in spread(len(attending), MOST)}
    return list_sites([c for c in crossings if c.key in chosen], axis)


def list_sites(kept: Sequence[Crossing], axis: Sequence[Crossing] = ()) -> Chart:
    """A chart of these sites, in this order; `axis`: those that lie on the depth axis."""
    slots = {c.key: Slot(row, c.key, c.family, low=c.low) for row, c in enumerate(kept)}
    sites = tuple(_site(c, row) for row, c in enumerate(kept))
    rows = tuple(slots[c.key].row for c in axis)
    return Chart(slots, sites, Axis("depth", "depth", rows) if len(rows) > 1 else None)


def spread(count: int, most: int) -> list[int]:
    """At most so many of the first `count` numbers, evenly, both ends included."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _site(crossing: Crossing, row: int) -> Site:
    path, kind, call = crossing.key
    facts: NodeFacts = {"shape": crossing.shape, "order": row, "family": crossing.family}
    if crossing.family == "activation":
        facts["rectifier"] = kind in operations.RECTIFIERS
    if crossing.family == "router":
        facts["experts"], facts["choices"] = crossing.shape[-2], crossing.shape[-1]
        facts["rows"] = crossing.shape[0]
    if crossing.family == "attention":
        facts["tokens"] = crossing.shape[-2] if kind != "softmax" else crossing.shape[-1]
    return Site.node(path, kind, call, facts)


def rectifies(kind: str) -> bool:
    """Whether an operation of this name is a rectifier."""
    return kind in operations.RECTIFIERS


def fit(own: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a site's own buffer (SAMPLES, POSITIONS, UNITS) that a copied part of this shape fills."""
    if len(shape) == 4:
        own = own.view(own.shape[0], 2, -1, own.shape[-1])
    return own[tuple(slice(n) for n in shape)]


def thin(x: Tensor, batch: int | None, samples: int = SAMPLES) -> Tensor | None:
    """At most (`samples`, POSITIONS, UNITS) evenly spaced elements of an activation, as a view.

    Images have their positions in two dimensions, so theirs has four: (SAMPLES, 2, POSITIONS / 2, UNITS).
    """
    if x.ndim == 0 or x.numel() == 0 or x.layout != torch.strided:
        return None
    size, stride = list(x.shape), list(x.stride())
    if batch and x.ndim > 1 and size[0] != batch and size[1] == batch:
        size[:2], stride[:2] = size[1::-1], stride[1::-1]
    if x.ndim == 1:
        order, most = [0], [samples]
    elif x.ndim == 2:
        order, most = [0, 1], [samples, UNITS]
    elif x.ndim == 3:
        order, most = [0, 1, 2], [samples, POSITIONS, UNITS]
    else:  # images: B, C, H, W...
        order, most = [0, 2, 3, 1], [samples, 2, POSITIONS // 2, UNITS]
    lengths = [min(size[d], m) for d, m in zip(order, most, strict=True)]
    steps = [stride[d] * max(1, size[d] // m) for d, m in zip(order, most, strict=True)]
    if len(lengths) < 3:  # samples, one position, units
        lengths, steps = [lengths[0], 1, *(lengths[1:] or [1])], [steps[0], 0, *(steps[1:] or [0])]
    return x.as_strided(lengths, steps, x.storage_offset())
