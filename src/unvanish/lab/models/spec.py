"""A network as typed data: a YAML, checked key by key before anything is built.

Notable:
- An unknown key is refused with file, line and the nearest right one.
- `activation:`, `init:` and `norm:` at the top apply to the whole network, so two networks can differ in one
  line.
- A file with `backbone:` and `head:` has other defaults, which its users expect: SiLU, steady batch norm,
  PyTorch's own initialisation.
- `read(name, **overrides)` changes top-level keys: `read("resnet20.yaml", activation="gelu", init="he")`.
- Reading does not import torch and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unvanish.core.names import show
from unvanish.core.registry import suggest
from unvanish.lab.models.names import join, open_model
from unvanish.lab.models.rows import Place, SpecRow, read_rows
from unvanish.lab.models.scales import ScaleFactors
from unvanish.lab.models.yaml_data import SpecError, YamlList, YamlTable, from_plain, to_plain

INPUTS = {
    "classify": ("image",), "sentiment": ("tokens",), "language": ("tokens",), "sequence": ("series",),
    "translate": ("source", "target"), "detect": ("image",), "segment": ("image",),
}  # fmt: skip
INPUTS_MOST = 8
INITS = ("critical", "he", "xavier", "torch")
FACTS = (
    "classes", "channels", "size", "length", "vocabulary", "target_vocabulary", "features", "outputs",
)  # fmt: skip
ALIASES = {"nc": "classes", "ch": "channels", "imgsz": "size", "act": "activation"}
NUMBERS = ("depth", "width")  # a row can say `repeats: depth`, `out: width`
WORDS = ("name", "description", "task", "activation", "init", "norm", "scale")
FACTORS = ("depth_multiple", "width_multiple")
HEADS = {
    "Detect": "detect",
    "Segment": "segment",
    "Classify": "classify",
}  # the task of a detector's last row
LISTS = ("layers", "backbone", "head", "inputs", "scales")
YOURS = (
    "model", "data", "project", "name", "exist_ok", "resume", "download", "workers", "device", "allow_code",
)  # fmt: skip  # arguments that decide what is read, written or fetched, or how much of the machine is taken
ELSEWHERE = {
    "anchors": "a head with anchors is not there: Detect has none, as in YOLOv5u, YOLOv8 and YOLO11",
    "kpt_shape": "poses are not there; the heads are Detect, Segment and Classify",
    "end2end": "a head without suppression is not there; the heads are Detect, Segment and Classify",
    "reg_max": "a head with another number of bins is not there; Detect has 16",
}  # keys of networks that we do not have
KEYS = (*WORDS, *NUMBERS, *FACTS, *FACTORS, *LISTS, "train")


@dataclass(frozen=True)
class Spec:
    """A network as its YAML describes it: task, scale, what applies to all layers, facts of the data, rows.

    `facts`: those of classes, channels, size ... that the file gives; `document`: the table with its
    overrides, from which `read` gives the same spec. `allow_code`: rows may name classes by Python paths.
    """

    name: str
    task: str
    layers: tuple[SpecRow, ...]
    inputs: tuple[str, ...]
    scale: ScaleFactors = field(default_factory=ScaleFactors)
    activation: str | None = None
    init: str = "critical"
    norm: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    file: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    allow_code: bool = False

    @property
    def classic(self) -> bool:
        """Whether the file has a backbone and a head, whose rows mean what users of detectors know."""
        return "backbone" in self.document

    def error(self, line: int, text: str) -> SpecError:
        """An error at a line of this network's file."""
        return SpecError(self.file, line, text)


def read(source: str | Path | Mapping[str, Any], *, allow_code: bool = False, **overrides: Any) -> Spec:
    """Read the network of a YAML (zoo name or path) or a mapping; `overrides` change top-level keys.

    `allow_code`: layers given by their Python path are imported when the network is built, else refused.
    SpecError names file, line and the nearest right key.
    """
    if isinstance(source, Mapping):
        found, file, scale = from_plain(source), "mapping", ""
        name = str(source.get("name", "network"))
    else:
        found, path, scale = open_model(source)
        file, name = str(path), path.stem
    _refuse_unknown(found, file)
    changed = {ALIASES.get(key, key): from_plain(value) for key, value in overrides.items()}
    _refuse_unknown(YamlTable(changed, {}, 0), "overrides")
    _refuse_unused(changed, found, file)
    document = _apply_scale({ALIASES.get(k, k): v for k, v in found.items()}, scale, changed, file, found)
    lines = {ALIASES.get(k, k): n for k, n in found.lines.items()}
    try:
        return replace(_spec(YamlTable(document, lines, 1), file, name), allow_code=allow_code)
    except SpecError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        text = f"this is no network: {type(error).__name__}: {show(error)[:120]}"
        raise SpecError(file, 0, text) from error


def _apply_scale(
    base: dict[str, Any], scale: str, changed: dict[str, Any], file: str, found: YamlTable
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
    if isinstance(own, YamlTable):
        _refuse_unknown(own, file)
        done = YamlTable(
            {chosen: YamlTable({}, {}, 0)}, {}, 0
        )  # its keys are taken over; overrides must outlive them
        base = base | {ALIASES.get(k, k): v for k, v in own.items()} | {"scales": done}
    return base | changed | ({"scale": chosen} if chosen else {})


def _spec(found: YamlTable, file: str, stem: str) -> Spec:
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
    inputs = _inputs(found, file) or INPUTS[task]
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
        document=to_plain(found) | {"name": found.get("name", default_name)},
        train=_train(found, file),
    )


def _train(found: YamlTable, file: str) -> dict[str, Any]:
    given = found.get("train") or {}
    if not isinstance(given, Mapping):
        text = f"train must map arguments to values, as in {{epochs: 8, lr0: 0.001}}, it is {given!r}"
        raise SpecError(file, found.at("train"), text)
    for key in given:
        if str(key).replace("-", "_") in YOURS:
            line = given.at(key) if isinstance(given, YamlTable) else found.at("train")
            raise SpecError(file, line, f"{key} is for whoever trains, not for a YAML; give it in the call")
    made = to_plain(given)
    return dict(made)


def _refuse_unknown(found: YamlTable, file: str) -> None:
    for key in found:
        if key in ELSEWHERE:
            raise SpecError(file, found.at(key), f"{key}: {ELSEWHERE[key]}")
        if key not in KEYS and key not in ALIASES:
            near = suggest(key, [*KEYS, *ALIASES])
            raise SpecError(file, found.at(key), f"no key {key!r}{near}; the keys are {', '.join(KEYS)}")


def _refuse_unused(changed: Mapping[str, Any], found: Mapping[str, Any], file: str) -> None:
    """SpecError for a number that no row reads, so that it would change nothing."""
    for key in (key for key in NUMBERS if key in changed):
        if not any(_mentions(found.get(part), key) for part in ("layers", "backbone", "head")):
            sizes = ", ".join(map(str, found.get("scales") or {}))
            next_step = f"choose one of its scales ({sizes})" if sizes else "change it in a copy of the file"
            text = (
                f"{key}={show(changed[key])} changes nothing: no row of {file} reads it, as `repeats: depth`"
            )
            text += f" or `out: width` would; {next_step}"
            raise SpecError("overrides", 0, text)


def _mentions(value: Any, word: str) -> bool:
    """Whether a word stands somewhere in plain values."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return any(_mentions(one, word) for one in value) if isinstance(value, list) else value == word


def _scale(found: YamlTable, file: str) -> ScaleFactors:
    name = str(found.get("scale", ""))
    scales = found.get("scales") or {}
    own = scales.get(name)
    if own is None or isinstance(own, Mapping):
        depth, width = (found.get(key, 1.0) for key in FACTORS)
        for key, value in zip(FACTORS, (depth, width), strict=True):
            if not _is_factor(value):
                raise SpecError(
                    file, found.at(key), f"{key} must be a number from 0 to 1000, it is {value!r}"
                )
        return ScaleFactors(name, float(depth), float(width))
    fits = isinstance(own, list) and len(own) in (2, 3)
    if not fits or not all(map(_is_factor, own[:2])) or not all(_is_factor(n / 1e6) for n in own[2:]):
        line = scales.at(name) if isinstance(scales, YamlTable) else found.at("scales")
        raise SpecError(file, line, f"scale {name!r} must be [depth, width, most channels], it is {own!r}")
    return ScaleFactors(name, *(float(n) for n in own))


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1000


def _raw_rows(found: YamlTable, file: str) -> list[tuple[Any, int]]:
    parts = [key for key in ("layers", "backbone", "head") if key in found]
    if not parts or ("layers" in parts and len(parts) > 1):
        raise SpecError(file, found.line, "rows belong under `layers:`, or under `backbone:` and `head:`")
    rows: list[tuple[Any, int]] = []
    for key in parts:
        part = found[key]
        if not isinstance(part, YamlList) or not part:
            raise SpecError(file, found.at(key), f"{key} must be a list of rows, it is {part!r}")
        rows += zip(part, part.lines, strict=True)
    return rows


def _inputs(found: YamlTable, file: str) -> tuple[str, ...]:
    """The names of the net's inputs that the file gives; none without them."""
    given = found.get("inputs") or ()
    words = isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)
    if not words or len(given) > INPUTS_MOST or len(set(given)) < len(given):
        raise SpecError(file, found.at("inputs"), "inputs must be a list of different words, at most eight")
    return tuple(given)


def _task_of(rows: list[tuple[Any, int]]) -> str:
    """The task implied by the last row's module; classification by default."""
    last = rows[-1][0]
    listed = isinstance(last, YamlList) and len(last) > 2
    module = last.get("module") if isinstance(last, YamlTable) else last[2] if listed else ""
    return HEADS.get(str(module), "classify")


def _whole(key: str, found: YamlTable, file: str) -> int:
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(file, found.at(key), f"{key} must be a whole number from 1, it is {value!r}")
    return value


def _fact(key: str, found: YamlTable, file: str) -> Any:
    value = found[key]
    if key == "size" and isinstance(value, list) and len(value) == 2:
        return tuple(_whole(key, YamlTable({key: n}, found.lines, found.line), file) for n in value)
    return _whole(key, found, file)
