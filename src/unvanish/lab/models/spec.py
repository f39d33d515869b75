"""A network as typed data: what a YAML says, checked key by key, before anything is built.

Notable:
- Every key that is not known is refused with its file, its line and the nearest right one.
- `activation:`, `init:` and `norm:` at the top set the whole network, so two networks can be one line apart.
- A file of `backbone:` and `head:` means SiLU, a steady batch norm and PyTorch's own weights where it says
  nothing else, as its users expect.
- `read(name, **overrides)` changes top-level keys: `read("resnet20.yaml", activation="gelu", init="he")`.
- Reading imports no torch and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unvanish.core.registry import suggest
from unvanish.lab.models.lines import Series, SpecError, Table, bare, table
from unvanish.lab.models.names import join, open_model
from unvanish.lab.models.rows import Place, Row, read_rows
from unvanish.lab.models.scales import Scale

INPUTS = {
    "classify": ("image",), "sentiment": ("tokens",), "language": ("tokens",), "sequence": ("series",),
    "translate": ("source", "target"), "detect": ("image",), "segment": ("image",),
}  # fmt: skip
INITS = ("critical", "he", "xavier", "torch")
FACTS = (
    "classes", "channels", "size", "length", "vocabulary", "target_vocabulary", "features", "outputs",
)  # fmt: skip
ALIASES = {"nc": "classes", "ch": "channels", "imgsz": "size", "act": "activation"}
NUMBERS = ("depth", "width")  # a row can say `repeats: depth`, `out: width`
WORDS = ("name", "description", "task", "activation", "init", "norm", "scale")
FACTORS = ("depth_multiple", "width_multiple")
LISTS = ("layers", "backbone", "head", "inputs", "scales")
KEYS = (*WORDS, *NUMBERS, *FACTS, *FACTORS, *LISTS, "train")


@dataclass(frozen=True)
class Spec:
    """A network as its YAML says: task, scale, what holds for all layers, facts of the data, and its rows.

    `facts`: classes, channels, size ... as far as the file gives them; `document`: the table with its
    overrides, which `read` takes back.
    """

    name: str
    task: str
    layers: tuple[Row, ...]
    inputs: tuple[str, ...]
    scale: Scale = field(default_factory=Scale)
    activation: str | None = None
    init: str = "critical"
    norm: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    file: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def error(self, line: int, text: str) -> SpecError:
        """An error at a line of this network's file."""
        return SpecError(self.file, line, text)


def read(source: str | Path | Mapping[str, Any], **overrides: Any) -> Spec:
    """The network a YAML (zoo name, path) or a mapping describes, with top-level keys changed by `overrides`.

    SpecError names file, line and the nearest right key.
    """
    if isinstance(source, Mapping):
        found, file, scale = table(source), "mapping", ""
        name = str(source.get("name", "network"))
    else:
        found, path, scale = open_model(source)
        file, name = str(path), path.stem
    _refuse_unknown(found, file)
    changed = {ALIASES.get(key, key): table(value) for key, value in overrides.items()}
    _refuse_unknown(Table(changed, {}, 0), "overrides")
    document = _scaled({ALIASES.get(k, k): v for k, v in found.items()}, scale, changed, file, found)
    return _spec(Table(document, {ALIASES.get(k, k): n for k, n in found.lines.items()}, 1), file, name)


def _scaled(
    base: dict[str, Any], scale: str, changed: dict[str, Any], file: str, found: Table
) -> dict[str, Any]:
    """The file's keys, then those of the scale, then the overrides; `scale` is the chosen one's name."""
    scales = base.get("scales") or {}
    if not isinstance(scales, Mapping):
        raise SpecError(
            file, found.at("scales"), "scales must map names to [depth, width, channels] or to keys"
        )
    chosen = str(changed.pop("scale", None) or scale or base.get("scale") or next(iter(scales), ""))
    if chosen and chosen not in scales:
        listed = ", ".join(scales) or "none"
        raise SpecError(
            file, found.at("scales"), f"no scale {chosen!r}{suggest(chosen, scales)}; there are {listed}"
        )
    own = scales.get(chosen)
    if isinstance(own, Table):
        _refuse_unknown(own, file)
        done = Table(
            {chosen: Table({}, {}, 0)}, {}, 0
        )  # its keys are taken over; overrides must outlive them
        base = base | {ALIASES.get(k, k): v for k, v in own.items()} | {"scales": done}
    return base | changed | ({"scale": chosen} if chosen else {})


def _spec(found: Table, file: str, stem: str) -> Spec:
    def error(key: str, text: str) -> SpecError:
        return SpecError(file, found.at(key), text)

    def word(key: str, known: tuple[str, ...] = (), default: Any = None) -> Any:
        value = found.get(key, default)
        if value is not None and not isinstance(value, str):
            raise error(key, f"{key} must be a word, it is {value!r} ({type(value).__name__})")
        if known and value not in known:
            raise error(key, f"no {key} {value!r}{suggest(str(value), known)}; there are {', '.join(known)}")
        return value

    scale, classic = _scale(found, file), "backbone" in found
    raw = _raw_rows(found, file)
    task = word("task", tuple(INPUTS), _task_of(raw))
    inputs = tuple(found.get("inputs") or INPUTS[task])
    numbers = {k: _whole(k, found, file) for k in NUMBERS if k in found}
    facts = {k: _fact(k, found, file) for k in FACTS if k in found}
    place = Place(file, inputs, numbers | {k: v for k, v in facts.items() if isinstance(v, int)}, scale)
    norm = "steady" if classic else None
    default_name = join(stem, scale.name) if scale.name else stem
    return Spec(
        name=word("name", default=default_name),
        task=task,
        layers=read_rows(raw, place),
        inputs=inputs,
        scale=scale,
        activation=word("activation", default="silu" if classic else None),
        init=word("init", INITS, "torch" if classic else "critical"),
        norm="none" if "norm" in found and found["norm"] is None else word("norm", default=norm),
        facts=facts,
        numbers=numbers,
        description=word("description", default=""),
        file=file,
        document=bare(found) | {"name": found.get("name", default_name)},
        train=_train(found, file),
    )


def _train(found: Table, file: str) -> dict[str, Any]:
    given = found.get("train") or {}
    if not isinstance(given, Mapping):
        text = f"train must map arguments to values, as in {{epochs: 8, lr0: 0.001}}, it is {given!r}"
        raise SpecError(file, found.at("train"), text)
    made = bare(given)
    return dict(made)


def _refuse_unknown(found: Table, file: str) -> None:
    for key in found:
        if key not in KEYS and key not in ALIASES:
            near = suggest(key, [*KEYS, *ALIASES])
            raise SpecError(file, found.at(key), f"no key {key!r}{near}; the keys are {', '.join(KEYS)}")


def _scale(found: Table, file: str) -> Scale:
    name = str(found.get("scale", ""))
    scales = found.get("scales") or {}
    own = scales.get(name)
    if own is None or isinstance(own, Mapping):
        depth, width = (found.get(key, 1.0) for key in FACTORS)
        return Scale(name, float(depth), float(width))
    fits = isinstance(own, list) and len(own) in (2, 3)
    if not fits or not all(isinstance(n, int | float) and n > 0 for n in own):
        line = scales.at(name) if isinstance(scales, Table) else found.at("scales")
        raise SpecError(file, line, f"scale {name!r} must be [depth, width, most channels], it is {own!r}")
    return Scale(name, *(float(n) for n in own))


def _raw_rows(found: Table, file: str) -> list[tuple[Any, int]]:
    parts = [key for key in ("layers", "backbone", "head") if key in found]
    if not parts or ("layers" in parts and len(parts) > 1):
        raise SpecError(file, found.line, "the rows stand under `layers:`, or under `backbone:` and `head:`")
    rows: list[tuple[Any, int]] = []
    for key in parts:
        part = found[key]
        if not isinstance(part, Series) or not part:
            raise SpecError(file, found.at(key), f"{key} must be a list of rows, it is {part!r}")
        rows += zip(part, part.lines, strict=True)
    return rows


def _task_of(rows: list[tuple[Any, int]]) -> str:
    """The task that the last row's module stands for; classification where it stands for none."""
    last = rows[-1][0]
    module = last.get("module") if isinstance(last, Table) else last[2] if len(last) > 2 else ""
    return {"Detect": "detect", "Segment": "segment"}.get(str(module), "classify")


def _whole(key: str, found: Table, file: str) -> int:
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(file, found.at(key), f"{key} must be a whole number from 1, it is {value!r}")
    return value


def _fact(key: str, found: Table, file: str) -> Any:
    value = found[key]
    if key == "size" and isinstance(value, list) and len(value) == 2:
        return tuple(_whole(key, Table({key: n}, found.lines, found.line), file) for n in value)
    return _whole(key, found, file)
