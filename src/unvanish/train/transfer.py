"""Weights that a network takes over from another one, for data with other classes or of another size.

Notable:
- Loaded weights are never dropped: every tensor that fits is taken; what is not is said by name and count.
- What belongs to a class goes by the class's name. Which tensors these are is found by building the network,
  without memory, for one class more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.names import show
from unvanish.lab.models import Spec, SpecError, build

MANY = 1000  # classes: more than any inner width follows


@dataclass(frozen=True)
class Donor:
    """Where weights come from: their tensors, the names of their classes, and what to call them."""

    tensors: Mapping[str, Tensor]
    names: Sequence[str]
    what: str


@dataclass
class Takeover:
    """What a network took over: tensors as a whole, in part (by classes), and those that begin anew."""

    whole: list[str] = field(default_factory=list)
    part: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # classes
    new: list[str] = field(default_factory=list)

    def describe(self, what: str) -> str:
        """What was taken over, in a line."""
        total = len(self.whole) + len(self.part) + len(self.fresh)
        text = f"{what}: {len(self.whole)} of {total} tensors taken over"
        if self.part:
            classes = (
                f"the classes {list_few(self.kept)} kept by name" if self.kept else "no class by that name"
            )
            new = f", {list_few(self.new)} begin anew" if self.new else ""
            text += f"; of {list_few(self.part)} {classes}{new}"
        return text + (
            f"; {list_few(self.fresh)} begin anew, as they have another shape" if self.fresh else ""
        )


def take_over(
    network: nn.Module, spec: Spec, facts: Mapping[str, Any], names: Sequence[str], origin: Donor
) -> Takeover:
    """Put weights into a network that was built for other data; its classes are `names`.

    Tensors of the same name and shape are taken; of those that have a row for each class, the rows of classes
    of the same name, as long as both sides name their classes.
    """
    own, taken, chosen = network.state_dict(), Takeover(), {}
    same = list(names) == list(origin.names)
    rows = {} if same or not (are_names(names) and are_names(origin.names)) else find_rows(spec, facts)
    pairs = [(i, origin.names.index(n)) for i, n in enumerate(names) if n in origin.names] if rows else []
    for key, value in own.items():
        given = origin.tensors.get(key)
        if key in rows and given is not None and value.shape[rows[key]] == len(names):
            fitted = _take_rows(value, given, rows[key], pairs, len(origin.names))
            taken.part.append(key) if fitted is not None else taken.fresh.append(key)
            chosen[key] = value if fitted is None else fitted
        elif given is not None and given.shape == value.shape:
            chosen[key] = given
            taken.whole.append(key)
        else:
            taken.fresh.append(key)
    if taken.part:
        taken.kept = [names[i] for i, _ in pairs]
        taken.new = [n for n in names if n not in origin.names]
    network.load_state_dict(chosen, strict=False)
    return taken


def fits_as_it_is(spec: Spec, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The first tensor that a network for these facts would have in another shape; empty if there is none."""
    try:
        wanted = build(spec, device="meta", **facts).state_dict()
    except SpecError as error:
        return error.text
    for key, value in wanted.items():
        there = tensors.get(key)
        if there is None or there.shape != value.shape:
            shape = "missing" if there is None else f"{tuple(there.shape)}"
            return f"{show(key)} is {shape} and would have to be {tuple(value.shape)}"
    return ""


def find_rows(spec: Spec, facts: Mapping[str, Any]) -> dict[str, int]:
    """The tensors that have a row for each class, and in which dimension."""
    if "classes" not in facts:
        return {}
    try:
        one, more = (
            build(spec, device="meta", **{**facts, "classes": n, **_outputs(facts, n)}).state_dict()
            for n in (MANY, MANY + 1)
        )
    except SpecError:
        return {}
    found = {}
    for key, value in one.items():
        other = more[key].shape if key in more else value.shape
        changed = [
            i for i, (a, b) in enumerate(zip(value.shape, other, strict=False)) if (a, b) == (MANY, MANY + 1)
        ]
        if len(changed) == 1:
            found[key] = changed[0]
    return found


def are_names(names: Sequence[str]) -> bool:
    """Whether classes have names, not only numbers."""
    return bool(names) and list(names) != [str(i) for i in range(len(names))]


def _outputs(facts: Mapping[str, Any], count: int) -> dict[str, int]:
    """The outputs of a sequence's classifier are its classes."""
    return {"outputs": count} if facts.get("outputs") == facts.get("classes") and "outputs" in facts else {}


def _take_rows(
    value: Tensor, given: Tensor, axis: int, pairs: Sequence[tuple[int, int]], count: int
) -> Tensor | None:
    """The values with the rows of the classes that both have; None if the other dimensions differ."""
    rest = [[n for i, n in enumerate(t.shape) if i != axis] for t in (value, given)]
    if value.ndim != given.ndim or rest[0] != rest[1] or given.shape[axis] != count:
        return None
    result = value.clone()
    if pairs:
        to, source = (torch.tensor(side, device=given.device) for side in zip(*pairs, strict=True))
        result.index_copy_(
            axis, to.to(result.device), given.index_select(axis, source).to(result.device, result.dtype)
        )
    return result


def list_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(show(n) for n in names[:most]) + more
