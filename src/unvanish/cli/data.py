"""The batch of a check: from the user's code, from a .pt file, or random, which the report says.

Notable:
- `--data` names a batch, a function that returns one, or an iterable, whose first batch is taken.
- A .pt file is data: it is loaded with weights_only, so it runs no code.
- Several inputs are passed under the names of forward's arguments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unvanish.cli import reference
from unvanish.cli.errors import CallError, their_code
from unvanish.cli.subject import Batch, Subject
from unvanish.core.registry import suggest

NUMBERS = 50_000_000  # of a random input, at most
DTYPES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "bfloat16": "bfloat16",
    "long": "int64",
}


def load(text: str) -> Any:
    """The batch that `--data` names; CallError if there is no such batch."""
    if text.endswith((".pt", ".pth")):
        return _tensors(_check_batch(load_file(Path(text), "--data"), text))
    if ":" not in text and not text.endswith(".py"):
        raise CallError(f"--data {text!r} is neither FILE.py:callable nor FILE.pt")
    value = reference.load(text, "--data")
    if callable(value) and not isinstance(value, Iterable):
        value = reference.call(value, text, "--data", "a batch, or batches to iterate over")
    return _first(value, text)


def make_random(
    subject: Subject, inputs: Sequence[str], dtypes: Sequence[str], size: int, seed: int
) -> Batch:
    """A random batch of the shapes in `--input`, or of the model's own."""
    shapes = [read_shape(text) for text in inputs]
    if subject.random_batch is not None and len(shapes) < 2 and not dtypes:
        return subject.random_batch(size, seed, shapes[0] if shapes else None)
    for shape in shapes:
        if size * math.prod(shape) > NUMBERS:
            whole = " x ".join(map(str, (size, *shape)))
            raise CallError(f"--input: {whole} is more than the {NUMBERS:,} numbers of a random batch")
    kinds = _kinds(subject.model, len(shapes), dtypes)
    names = ["input"] if len(shapes) == 1 else _names(subject.model, len(shapes))
    values, assumptions = {}, []
    for index, (name, shape, kind) in enumerate(zip(names, shapes, kinds, strict=True)):
        values[name], how = _make(subject.model, (size, *shape), kind, seed + index, index)
        assumptions.append(f"{name} is random: {how}, shape {(size, *shape)}, seed {seed + index}")
    return Batch(next(iter(values.values())) if len(shapes) == 1 else values, tuple(assumptions))


def load_file(path: Path, option: str) -> Any:
    """The content of a .pt file, loaded as data only; CallError if it is missing, damaged or holds code."""
    from unvanish.clinic.tensor_file import TensorFileError, read_tensors

    if not path.is_file():
        raise CallError(f"{option}: there is no file {path}{reference.suggest_file(path)}")
    try:
        return read_tensors(path)
    except TensorFileError as error:
        advice = "save plain tensors, torch.save((x, y), 'batch.pt'), or give FILE.py:callable"
        raise CallError(f"{option} {path}: {error}{f'; {advice}' if error.code else ''}") from error


def _check_batch(value: Any, path: str) -> Any:
    import torch

    if isinstance(value, Mapping) and "weights" in value and "args" in value:
        raise CallError(f"--data {path} is a snapshot of a watched training; use --snapshot {path}")
    if isinstance(value, Mapping) and any("." in str(key) for key in value):
        first = next(iter(value))
        raise CallError(f"--data {path} looks like a state_dict (it has {first!r}), not like a batch")
    if not isinstance(value, torch.Tensor | Mapping | tuple | list):
        raise CallError(f"--data {path} holds {type(value).__name__!r}, not a tensor, (x, y) or a dict")
    return value


def _first(value: Any, text: str) -> Any:
    """A batch itself, or the first one of an iterable; arrays become tensors."""
    import torch

    from unvanish.probes.fields import read_fields

    if isinstance(value, torch.Tensor | Mapping | tuple) or _is_array(value):
        return _tensors(value)
    if (hasattr(value, "keys") or not isinstance(value, Iterable)) and read_fields(value) is not None:
        return value  # a dataclass, graph data
    if isinstance(value, list) and all(isinstance(v, torch.Tensor) or _is_array(v) for v in value):
        return _tensors(value)
    if not isinstance(value, Iterable):
        gave = f"gave {type(value).__name__!r}; a tensor, (x, y), a dict or a DataLoader is needed"
        raise CallError(f"--data {text} {gave}")
    with their_code(f"--data {text}: taking its first batch"):
        for batch in value:
            return _tensors(batch)
    raise CallError(f"--data {text} is empty: it yields no batch")


def _is_array(value: Any) -> bool:
    import numpy as np

    return isinstance(value, np.ndarray)


def _tensors(batch: Any) -> Any:
    """The batch with tensors for NumPy arrays, and plain dicts and tuples for mappings and lists."""
    import torch

    if isinstance(batch, Mapping):
        return {key: _tensors(value) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return tuple(_tensors(value) for value in batch)
    return torch.from_numpy(batch) if _is_array(batch) else batch


def read_shape(text: str) -> tuple[int, ...]:
    """The shape in an `--input`, without the batch; CallError if it is not a shape."""
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise CallError(
            f"--input {text!r} is not a shape; write it without the batch, as in --input 3,224,224"
        )
    return tuple(map(int, parts))


def _kinds(model: Any, count: int, dtypes: Sequence[str]) -> list[str]:
    """A dtype for each input, the last one for the rest; by default ids if an embedding comes first."""
    import torch

    for dtype in dtypes:
        if dtype not in DTYPES:
            names = ", ".join(DTYPES)
            raise CallError(f"--dtype {dtype!r} is not known{suggest(dtype, DTYPES)}; the types are {names}")
    if len(dtypes) > count:
        raise CallError(f"--dtype is given {len(dtypes)} times for {count} of --input")
    if not dtypes:
        own = (m for m in model.modules() if next(m.parameters(recurse=False), None) is not None)
        first = next(own, None)
        dtypes = ["long" if isinstance(first, torch.nn.Embedding) else "float"]
    return [*dtypes, *[dtypes[-1]] * (count - len(dtypes))]


def _names(model: Any, count: int) -> list[str]:
    """The names of the first `count` arguments of forward; CallError if it has fewer."""
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in plain]
    if len(names) < count:
        takes = f"{type(model).__name__}.forward names {len(names)} ({', '.join(names) or 'none'})"
        raise CallError(f"--input is given {count} times, {takes}; give the batch with --data")
    return names[:count]


def _make(model: Any, shape: tuple[int, ...], kind: str, seed: int, index: int) -> tuple[Any, str]:
    """A random tensor and its description: ids below the size of the embedding, or standard normal."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if kind != "long":
        dtype = getattr(torch, DTYPES[kind])
        return torch.randn(shape, generator=generator).to(dtype), f"standard normal {DTYPES[kind]}"
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    below = tables[min(index, len(tables) - 1)] if tables else 2
    return torch.randint(below, shape, generator=generator), f"ids below {below}"
