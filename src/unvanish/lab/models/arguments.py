"""The arguments of a row's module: from the row, its inputs, the top of the file, and the data.

Notable:
- Widths come from the inputs: `width_in` or `widths_in` of a block, `in_channels`, `in_features`,
  `num_features` ... of torch's own layers, unless the row gives them by name.
- A word in place of a number is looked up: `out: classes`, `[nc]`, `out: width`.
- The scale multiplies `out` (or the arguments that a block lists in SCALED), and only numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from unvanish.core.registry import suggest
from unvanish.lab.models.rows import SpecRow
from unvanish.lab.models.spec import ALIASES, FACTS, Spec

WIDTH = (
    "width_in", "in_channels", "in_features", "num_features", "input_size", "normalized_shape",
    "num_channels", "embed_dim", "d_model", "in1_features",
)  # fmt: skip
OTHER_NAMES = {"out": ("out_channels", "out_features", "hidden_size"), "kernel": ("kernel_size",)}
FILLED = ("activation", "norm", "depth", "variant", "legacy", *FACTS)  # from the file as a whole, or the data
NEWER = ("C3k2", "C2PSA")  # blocks of detectors whose heads have a branch of the classes in depthwise parts

_SIGNATURES: WeakKeyDictionary[Any, dict[str, inspect.Parameter]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Given:
    """What applies to the whole network: the spec, facts of the data, and the number of residual branches."""

    spec: Spec
    facts: Mapping[str, Any] = field(default_factory=dict)
    branches: int = 0

    def word(self, name: Any) -> Any:
        """The fact or number of this name, else the word itself."""
        if not isinstance(name, str):
            return name
        if name == "None":  # as classic rows write it: [None, 2, "nearest"]
            return None
        key = ALIASES.get(name, name)
        known: dict[str, Any] = {**self.spec.numbers, **self.facts}
        return known.get(key, name)

    def fill(self, name: str) -> Any:
        """The value of a parameter that is filled in automatically, or None."""
        spec = self.spec
        own = {
            "activation": spec.activation,
            "norm": spec.norm,
            "depth": self.branches,
            "variant": spec.scale.name or None,
            "legacy": spec.classic and not any(row.module in NEWER for row in spec.layers),
        }
        return own[name] if name in own else self.facts.get(name)


def bind(
    row: SpecRow, cls: type[nn.Module], given: Given, widths: Sequence[int | None], first: bool = True
) -> dict[str, Any]:
    """The keyword arguments of one module; only the `first` of its repeats has a `stride`.

    `widths`: of its inputs, None for one without channels. SpecError names what is missing or unknown.
    """
    known = parameters(cls)
    widthwise = next((name for name in ("widths_in", *WIDTH) if name in known), "")
    taken = _from_row(row, cls, given, known, widthwise)
    if widthwise and widthwise not in taken:
        taken[widthwise] = _width(row, given, widthwise, widths)
    foreign = cls.__module__.startswith("torch.")  # whose `size` is not that of the data
    for name in () if foreign else FILLED:
        if name in known and name not in taken and given.fill(name) is not None:
            taken[name] = given.fill(name)
    usual = getattr(cls, "CLASSIC", {}) if given.spec.classic else {}
    taken |= {name: value for name, value in usual.items() if name not in taken}
    if not first:
        taken.pop("stride", None)
    _refuse_missing(row, given, known, taken)
    return taken


def _from_row(
    row: SpecRow, cls: type[nn.Module], given: Given, known: Mapping[str, inspect.Parameter], widthwise: str
) -> dict[str, Any]:
    """Arguments by position, then by name."""
    order = [n for n, p in known.items() if n != widthwise and p.kind is not p.KEYWORD_ONLY]
    if len(row.args) > len(order):
        text = f"{row.label} takes {len(order)} arguments ({', '.join(order)}), args has {len(row.args)}"
        raise given.spec.error(row.lines.get("args", row.line), text)
    pairs = list(zip(order, row.args, strict=False))
    pairs += [(_translate(name, known), value) for name, value in row.settings.items()]
    taken: dict[str, Any] = {}
    for name, value in pairs:
        line = row.lines.get(name, row.line)
        if name not in known:
            raise given.spec.error(line, f"{row.label} has no argument {name!r}{_near(name, known)}")
        if name in taken:
            raise given.spec.error(line, f"{row.label}: {name!r} is given twice, in args and by name")
        taken[name] = _apply_scale(name, value, cls, given)
    return taken


def _apply_scale(name: str, value: Any, cls: type[nn.Module], given: Given) -> Any:
    default = ("out", *OTHER_NAMES["out"])
    scaled = getattr(cls, "SCALED", default)
    if name in scaled and isinstance(value, int) and not isinstance(value, bool):
        return given.spec.scale.channels(value)
    return [given.word(v) for v in value] if isinstance(value, list) else given.word(value)


def _width(row: SpecRow, given: Given, name: str, widths: Sequence[int | None]) -> Any:
    if name == "widths_in":
        return tuple(widths)
    if widths[0] is None:
        text = (
            f"{row.label} needs the width of its input, which has none; pass token ids through an embedding"
        )
        raise given.spec.error(row.line, text)
    return widths[0]


def parameters(cls: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The parameters of a module's constructor, by name."""
    if cls not in _SIGNATURES:
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        found = inspect.signature(cls).parameters
        _SIGNATURES[cls] = {name: p for name, p in found.items() if p.kind not in kinds}
    return _SIGNATURES[cls]


def _translate(name: str, known: Mapping[str, Any]) -> str:
    if name in known:
        return name
    return next((other for other in OTHER_NAMES.get(name, ()) if other in known), ALIASES.get(name, name))


def _near(name: str, known: Mapping[str, Any]) -> str:
    usable = [n for n in known if n not in ("width_in", "widths_in")]
    listed = f"; it has {', '.join(usable)}" if usable else "; it has none"
    return f"{suggest(name, [*usable, 'from', 'repeats', 'name', 'args'])}{listed}"


def _refuse_missing(row: SpecRow, given: Given, known: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    missing = [n for n, p in known.items() if p.default is p.empty and n not in taken]
    if missing:
        name = missing[0]
        how = (
            f"in the row, at the top of the file, or as build(spec, {name}=...)"
            if name in FILLED
            else "in the row"
        )
        raise given.spec.error(row.line, f"{row.label} needs {name!r}: give it {how}")
