"""From a spec to a network: a pass without data finds every width, then modules are built and initialised.

Notable:
- The pass runs on the meta device, row by row: it computes shapes alone, and an error names its row.
- The same pass records which activation follows each layer, for the initialisation.
- `build(spec, device="meta")` gives a network without memory, for counting and forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest
from unvanish.lab.models.arguments import Given, bind, parameters
from unvanish.lab.models.bounds import LAYERS, ROWS, Measure, Size, large_numbers, on_meta
from unvanish.lab.models.flow import Flow, PlacedLayer
from unvanish.lab.models.initialise import Begin, initialise
from unvanish.lab.models.modules import module_class
from unvanish.lab.models.network import Network, Repeated, plan, takes_list
from unvanish.lab.models.rows import SpecRow
from unvanish.lab.models.spec import ALIASES, FACTS, Spec, read
from unvanish.lab.models.yaml_data import SpecError

DEFAULTS = {"channels": 3, "size": 64, "length": 32, "features": 1}
BATCH = 2
SAME = 2  # the repeat that represents those after it


@dataclass(frozen=True)
class Draft:
    """The result of the pass: arguments of every row's modules, output shapes, the layers' neighbours."""

    arguments: list[list[tuple[type[nn.Module], dict[str, Any]]]] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)
    listed: list[bool] = field(default_factory=list)
    layers: Mapping[str, PlacedLayer] = field(default_factory=dict)


def build(
    spec: Spec | str | Path | Mapping[str, Any],
    device: Any = None,
    *,
    allow_code: bool = False,
    most: float = math.inf,
    **facts: Any,
) -> Network:
    """The network of a spec, for data with these facts (classes, channels, size, length, vocabulary ...).

    Weights are initialised by `spec.init`, from torch's global generator. `allow_code`: rows may import the
    classes that they name by a Python path. SpecError names row, file and line; also of a network with more
    than `most` weights, or one that does not fit into memory.
    """
    spec = spec if isinstance(spec, Spec) else read(spec)
    spec = replace(spec, allow_code=spec.allow_code or allow_code)
    known = _facts(spec, facts)
    _refuse_layers(spec)
    given = Given(spec, known, _branches(spec))
    target = torch.get_default_device() if device is None else torch.device(device)
    draft = _draft_anywhere(spec, given, most, not on_meta(target))
    try:
        return _assemble(spec, known, draft, target, given.branches)
    except SpecError:
        raise
    except Exception as error:  # of a module, in any way
        first = (str(error).splitlines() or [""])[0][:200]
        raise spec.error(0, f"this network cannot be built: {type(error).__name__}: {first}") from error


def _assemble(
    spec: Spec, known: dict[str, Any], draft: Draft, target: torch.device, branches: int
) -> Network:
    """The network of a draft: its modules, their places, their weights."""
    with target:
        modules = [_make_module(pairs) for pairs in draft.arguments]
    names = [row.name for row in spec.layers]
    steps = plan([row.sources for row in spec.layers], names, draft.listed)
    net = Network(spec, steps, modules, known, draft.shapes)
    _place(net)
    if target.type != "meta":
        begin = Begin(spec.init, spec.activation or "relu", branches, known.get("length"))
        initialise(net, {n: v for n, v in draft.layers.items() if not _keeps_weights(net, n)}, begin)
    _tie(net, spec)
    return net


def _keeps_weights(net: Network, layer: str) -> bool:
    """Whether a layer is of a network of another library, which has its own weights."""
    return bool(getattr(getattr(net, layer.partition(".")[0]), "KEEPS_WEIGHTS", False))


def _place(net: Network) -> None:
    """Give rows with a `place` the stride of each of their inputs, in pixels of the image."""
    rows = example(net.spec, net.facts)[0].shape[-2]
    for step, module in zip(net.plan, net.children(), strict=True):
        place = getattr(module, "place", None)
        if place is not None:
            place([rows / net.shapes[source][-2] for source in step.sources])


def _tie(net: Network, spec: Spec) -> None:
    """Share weights between rows by `tied:`; SpecError if a module cannot."""
    modules = list(net.children())
    for row in spec.layers:
        if row.tied >= 0:
            tie = getattr(modules[row.index], "tie", None)
            line = row.lines.get("tied", row.line)
            if tie is None:
                raise spec.error(line, f"{row.label} has no weights to tie; leave `tied` out")
            try:
                tie(modules[row.tied])
            except (AttributeError, ValueError) as error:
                raise spec.error(line, f"{row.label}: {error}") from error


def example(
    spec: Spec, facts: Mapping[str, Any], batch: int = BATCH, device: Any = "meta"
) -> tuple[Tensor, ...]:
    """Zeros of the right shape and type as inputs for a spec's task."""
    known = {**DEFAULTS, **facts}
    length = known["length"]
    if spec.task in ("sentiment", "language", "translate"):
        return tuple(torch.zeros(batch, length, dtype=torch.long, device=device) for _ in spec.inputs)
    if spec.task == "sequence":
        return tuple(torch.zeros(batch, length, known["features"], device=device) for _ in spec.inputs)
    size = known["size"]
    high, wide = (size, size) if isinstance(size, int) else size
    return tuple(torch.zeros(batch, known["channels"], high, wide, device=device) for _ in spec.inputs)


def width(value: Any) -> int | None:
    """Channels of an output: dimension 1 of (B, C, H, W), else the last; None for ids."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
        return None
    return value.shape[1] if value.ndim == 4 else value.shape[-1]


def _facts(spec: Spec, facts: Mapping[str, Any]) -> dict[str, Any]:
    given = {ALIASES.get(key, key): value for key, value in facts.items() if value is not None}
    for key in given:
        if key not in FACTS:
            raise SpecError("build", 0, f"no fact {key!r}{suggest(key, FACTS)}; there are {', '.join(FACTS)}")
    if isinstance(given.get("size"), list):
        given["size"] = tuple(given["size"])
    for key, value in {**spec.facts, **given}.items():
        _refuse_fact(spec, key, value)
    return {**spec.facts, **given}


def _refuse_fact(spec: Spec, key: str, value: Any) -> None:
    """SpecError unless a fact is a whole number from 1 (a size: or two of them) that is not too large."""
    several = value if key == "size" and isinstance(value, tuple) and len(value) == 2 else (value,)
    for number in several:
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise SpecError(spec.file, 0, f"{key} must be a whole number from 1, it is {value!r}")
    for number in large_numbers(several):
        raise SpecError(spec.file, 0, f"{key} is {number:,}, which is too large")


def _refuse_layers(spec: Spec) -> None:
    """SpecError for more rows, repeats or layers than a network may have, or a number that is too large."""
    if len(spec.layers) > ROWS:
        raise spec.error(0, f"there are {len(spec.layers):,} rows; at most {ROWS:,} are built")
    for row in spec.layers:
        if row.repeats > ROWS:
            text = f"{row.label} is repeated {row.repeats:,} times; at most {ROWS:,} are built"
            raise spec.error(row.lines.get("repeats", row.line), text)
        for number in large_numbers([row.args, dict(row.settings)]):
            raise spec.error(row.line, f"{row.label}: the number {number:.6g} is too large")
    if (whole := sum(row.repeats for row in spec.layers)) > LAYERS:
        raise spec.error(0, f"there are {whole:,} layers; at most {LAYERS:,} are built")


def _branches(spec: Spec) -> int:
    """The number of residual branches along the network."""
    return sum(row.repeats * getattr(_class(spec, row), "BRANCHES", 0) for row in spec.layers)


def _class(spec: Spec, row: SpecRow) -> type[nn.Module]:
    try:
        return module_class(row.module, spec.allow_code, spec.classic)
    except (ValueError, TypeError) as error:
        line = row.lines.get("module", row.line)
        raise spec.error(line, f"layer {row.index}: {error}") from error


def _draft_anywhere(spec: Spec, given: Given, most: float, real: bool) -> Draft:
    """The pass on the meta device, or on zeros if a module reads values and cannot run there."""
    try:
        return _draft(spec, given, "meta", Size(most=most), real)
    except SpecError as error:
        message = str(error.__cause__)
        if not isinstance(error.__cause__, NotImplementedError | RuntimeError) or "meta" not in message:
            raise
    with torch.random.fork_rng(devices=[]):
        return _draft(spec, given, "cpu", Size(most=most), real)


def _draft(spec: Spec, given: Given, device: str, size: Size, real: bool) -> Draft:
    """Run the rows on tensors without data; build each module as soon as its inputs are known.

    SpecError names the row by which the network has become too large; `real`: for memory.
    """
    draft, flow, measure = Draft(), Flow(), Measure(size)
    inputs = example(spec, given.facts)
    size.outputs += sum(x.numel() for x in inputs)
    if fault := size.fault(real):
        raise spec.error(0, f"the input {_shape(inputs[0])}: {fault}")
    values: dict[int, Any] = {-1 - i: torch.zeros_like(x, device=device) for i, x in enumerate(inputs)}
    readers = {source for row in spec.layers for source in row.sources}
    for row in spec.layers:
        reads = [values[source] for source in row.sources]
        pairs: list[tuple[type[nn.Module], dict[str, Any]]] = []
        out = _run(spec, row, given, reads, flow, pairs, draft, device, measure)
        if fault := size.fault(real):
            raise spec.error(row.line, f"{row.label}: {fault}")
        draft.arguments.append(pairs)
        draft.shapes.append(_shape(out))
        if row.index in readers:
            values[row.index] = out
    return Draft(draft.arguments, draft.shapes, draft.listed, flow.layers)


def _run(
    spec: Spec,
    row: SpecRow,
    given: Given,
    reads: list[Any],
    flow: Flow,
    pairs: list[Any],
    draft: Draft,
    device: str,
    measure: Measure,
) -> Any:
    """One row's output; `pairs` takes the class and arguments of each of its repeats.

    If the third repeat behaves as the second did, so do the others, and only the last one is run.
    """
    cls = _class(spec, row)
    inside = row.repeats > 1 and "repeats" in parameters(cls)
    count = 1 if inside else row.repeats
    turn, step, skipped, outs = 0, 0, 0, list(reads[:1])
    while turn < count:
        settings = bind(row, cls, given, [width(x) for x in reads], first=turn == 0)
        if inside:
            settings["repeats"] = row.repeats
        pairs.append((cls, settings))
        name = f"{row.name}.{turn}" if count > 1 else row.name
        with _naming_row(spec, row, reads), measure:
            if device != "meta":
                with torch.device("meta"):
                    measure.size.check(cls(**settings))
            with torch.device(device):
                module = cls(**settings)
            measure.size.add(module)
            flow.know(module, name)
            if turn == 0:
                draft.listed.append(takes_list(module, len(reads)))
            with torch.no_grad(), flow, measure.forward():
                out = module(reads) if draft.listed[-1] else module(*reads)
        outs, reads = [*outs, out], [out, *reads[1:]]
        if turn == SAME and count > SAME + 3 and _alike(outs, pairs):
            step = flow.depth(outs[-1]) - flow.depth(outs[-2])
            skipped = count - SAME - 2
            measure.skip(module, skipped)
            pairs.extend([pairs[-1]] * skipped)
            flow.deepen(out, step * skipped)
            turn += skipped
        turn += 1
    others = [f"{row.name}.{turn}" for turn in range(SAME + 1, SAME + 1 + skipped)]
    flow.repeat(f"{row.name}.{SAME}", others, step)
    return outs[-1]


def _alike(outs: list[Any], pairs: list[Any]) -> bool:
    """Whether the last two repeats had the same arguments and made the same shape."""
    return bool(pairs[-1] == pairs[-2]) and _shape(outs[-1]) == _shape(outs[-2])


@contextmanager
def _naming_row(spec: Spec, row: SpecRow, reads: list[Any]) -> Iterator[None]:
    """Turn any error of a module, built or run, into a SpecError with its row, its line and its inputs."""
    try:
        yield
    except SpecError:
        raise
    except Exception as error:
        shapes = ", ".join(str(_shape(value)) for value in reads)
        message = (str(error).splitlines() or [""])[0]
        text = f"{row.label} cannot read {shapes}: {type(error).__name__}: {message}"
        raise spec.error(row.line, text) from error


def _make_module(pairs: list[tuple[type[nn.Module], dict[str, Any]]]) -> nn.Module:
    made = [cls(**settings) for cls, settings in pairs]
    return made[0] if len(made) == 1 else Repeated(*made)


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return {key: _shape(v) for key, v in value.items()}
    return tuple(_shape(v) for v in value) if isinstance(value, list | tuple) else type(value).__name__
