"""Weights out of a full checkpoint: a whole network that was pickled, with its optimizer and much else.

Notable:
- The network's classes are not needed: its tensors and its parts lie in the pickle under torch's own names.
- Of a running mean of the weights (`ema`) and the weights themselves the mean is taken, as those who wrote
  the file would; numbers of 16 bits are read as float32. What else it holds stays unopened, and is named.
- The plan of the network (its YAML as a table), the names of its classes and its image size are taken along
  if they are plain values.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unvanish.clinic.tensor_file import TensorFileError, open_archive
from unvanish.core.bounds import DEEPEST, find_fault
from unvanish.core.memory import measure_memory
from unvanish.core.names import show
from unvanish.train.checkpoint.inert import DamagedPickle, Held, HeldTensor, follow

PLACES = ("ema", "model", "state_dict", "model_state_dict", "net", "module", "weights", "network")
PICKLE = 100_000_000  # bytes of it; the tensors lie beside it
PARTS = 20_000  # of a network
CLASSES = 100_000
COPIES = 8  # bytes of tensors / bytes of their file: 16 bits become 32, some share their memory
NOTED = ("train_args", "names", "yaml")  # read where they are plain
ATOMS = (str, bytes, int, float, type(None))  # of no consequence
WRAPPERS = ("module.", "_orig_mod.")
DTYPES = {
    "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Double": torch.float64,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class FullCheckpoint:
    """What was taken from a full checkpoint: tensors by name, the plan of their network, and what was left.

    `plan`: the network's YAML as a table, empty if there is none; `normalisation`: mean and deviation of the
    images of a classifier that it carries; `place`: where the weights lay.
    """

    tensors: Mapping[str, Tensor]
    plan: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    place: str = ""
    left: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What was taken and what was left, in words."""
        taken = [f"{len(self.tensors):,} tensors" + (f" of its `{self.place}`" if self.place else "")]
        taken += ["its plan"] * bool(self.plan) + [f"{len(self.names)} class names"] * bool(self.names)
        left = f"; left unopened: {', '.join(self.left[:6])}" if self.left else ""
        more = f" and {len(self.left) - 6} more" if len(self.left) > 6 else ""
        return f"{', '.join(taken)} are read as data, and no code of it{left}{more}"


def read_full(path: Path) -> FullCheckpoint:
    """The weights of a full checkpoint; TensorFileError says why there are none to be had."""
    with open_archive(path) as archive:
        root = find_root(archive)
        if archive.getinfo(f"{root}data.pkl").file_size > PICKLE:
            raise TensorFileError(f"its pickle is larger than {PICKLE:,} bytes")
        try:
            content = follow(archive.read(f"{root}data.pkl"))
            place, found = find_weights(content)
            described = without_wrappers(dict(list_tensors(found)))
            tensors = read_all(archive, root, described)
            state = found.state if isinstance(found, Held) else {}
            scale = normalisation_of(archive, root, state)
        except DamagedPickle as error:
            raise TensorFileError(str(error)) from error
        except (
            zipfile.BadZipFile,
            KeyError,
            RuntimeError,
            ValueError,
            OSError,
            NotImplementedError,
        ) as error:
            if isinstance(error, TensorFileError):
                raise
            raise TensorFileError(f"it is damaged ({type(error).__name__}: {str(error)[:100]})") from error
    whole = content if isinstance(content, Mapping) else {}
    left = tuple(
        show(k)[:40] for k, v in whole.items() if k not in (place, *NOTED) and not isinstance(v, ATOMS)
    )
    names, settings = names_of(state, whole), settings_of(state, whole)
    return FullCheckpoint(tensors, plan_of(state), names, settings, scale, place, left)


def find_root(archive: zipfile.ZipFile) -> str:
    """The folder within an archive of torch.save that holds its pickle."""
    names = archive.namelist()
    if any(n.endswith("/constants.pkl") for n in names):
        raise TensorFileError("it is a TorchScript program, not weights", code=True)
    found = [n for n in names if n == "data.pkl" or (n.endswith("/data.pkl") and n.count("/") == 1)]
    if len(found) != 1:
        raise TensorFileError("torch.save did not write it: it has no data.pkl")
    root = found[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() not in (b"little", b""):
        raise TensorFileError("it was written on a machine with another byte order")
    return root


def find_weights(content: Any) -> tuple[str, Any]:
    """The part of a checkpoint that holds the weights, and its key ("" for the whole)."""
    if isinstance(content, Mapping):
        for key in PLACES:
            if key in content and next(list_tensors(content[key]), None) is not None:
                return key, content[key]
    if next(list_tensors(content), None) is None:
        raise TensorFileError(
            "it holds more than tensors, but no network and no state_dict, and is not opened", code=True
        )
    return "", content


def list_tensors(value: Any, within: bool = True) -> Iterator[tuple[str, HeldTensor]]:
    """The tensors of a state dict, or of a network that was pickled, by name."""
    if isinstance(value, Held):
        yield from list_parts(value, "", 0, [0])
    elif isinstance(value, Mapping):
        own = [(k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, HeldTensor)]
        inner = [value[k] for k in ("module", *PLACES) if k in value] if within and not own else []
        yield from own or next((found for v in inner if (found := list(list_tensors(v, False)))), [])


def list_parts(part: Held, prefix: str, depth: int, count: list[int]) -> Iterator[tuple[str, HeldTensor]]:
    """The parameters and saved buffers of a module that was pickled and of those within it, by name."""
    count[0] += 1
    if depth > DEEPEST or count[0] > PARTS:
        raise TensorFileError(f"its network has more than {PARTS:,} parts or {DEEPEST} levels")
    state = part.state if isinstance(part.state, Mapping) else {}
    unsaved = state.get("_non_persistent_buffers_set") or ()
    for key in ("_parameters", "_buffers"):
        held = state.get(key)
        for name, value in held.items() if isinstance(held, Mapping) else ():
            if isinstance(value, HeldTensor) and (key == "_parameters" or name not in unsaved):
                yield f"{prefix}{name}", value
    inner = state.get("_modules")
    for name, value in inner.items() if isinstance(inner, Mapping) else ():
        if isinstance(value, Held):
            yield from list_parts(value, f"{prefix}{name}.", depth + 1, count)


def without_wrappers(described: dict[str, HeldTensor]) -> dict[str, HeldTensor]:
    """The tensors without what wrappers (several devices, a compiler) put before all names."""
    for prefix in WRAPPERS:
        if described and all(k.startswith(prefix) for k in described):
            described = {k.removeprefix(prefix): v for k, v in described.items()}
    return described


def read_all(archive: zipfile.ZipFile, root: str, described: Mapping[str, HeldTensor]) -> dict[str, Tensor]:
    """The tensors of an archive, those of 16 bits as float32; TensorFileError if they are too large."""
    need, size = (
        sum(8 * math.prod(t.shape) for t in described.values()),
        sum(i.file_size for i in archive.infolist()),
    )
    if need > min(measure_memory(), COPIES * size + PICKLE):
        raise TensorFileError(f"its tensors would need {need:,} bytes, more than the file holds")
    memory: dict[str, Tensor] = {}
    found = {}
    for name, tensor in described.items():
        key = tensor.storage.key
        if key not in memory:
            memory[key] = read_memory(archive, f"{root}data/{key}", tensor)
        found[name] = cut(memory[key], tensor)
    return found


def read_memory(archive: zipfile.ZipFile, file: str, tensor: HeldTensor) -> Tensor:
    """The numbers of a file of the archive, in one row."""
    dtype = DTYPES.get(tensor.storage.kind.rpartition(".")[2].removesuffix("Storage"))
    if dtype is None:
        raise TensorFileError(
            f"it holds a tensor of the type {show(tensor.storage.kind)[:60]}, which is not read"
        )
    content = bytearray(archive.read(file))
    if len(content) != tensor.storage.count * dtype.itemsize:
        raise TensorFileError("the memory of a tensor has another size than its pickle says")
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def cut(memory: Tensor, tensor: HeldTensor) -> Tensor:
    """A tensor out of its memory; TensorFileError for one that leaves it, or shows it many times."""
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    count = math.prod(tensor.shape)
    if count and (last >= len(memory) or count > len(memory)):
        raise TensorFileError(f"a tensor {tensor.shape} has more numbers than its memory")
    seen = torch.as_strided(memory, tensor.shape, tensor.strides, tensor.offset) if count else torch.empty(
        tensor.shape, dtype=memory.dtype)  # fmt: skip
    return (seen.float() if memory.dtype in (torch.float16, torch.bfloat16) else seen).clone()


def plan_of(state: Any) -> dict[str, Any]:
    """The YAML of a network that it carries as a table; empty if it has none, or not of plain values."""
    plan = state.get("yaml") if isinstance(state, Mapping) else None
    return dict(plan) if isinstance(plan, Mapping) and is_plain(plan) else {}


def names_of(state: Any, whole: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes, by number; none if there are none, or not of plain words."""
    names = (state.get("names") if isinstance(state, Mapping) else None) or whole.get("names")
    if isinstance(names, Mapping):
        names = [names.get(i) for i in range(len(names))] if len(names) <= CLASSES else None
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        return ()
    return tuple(n for n in names)


def settings_of(state: Any, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the training that made the weights, as far as they are plain."""
    for given in (whole.get("train_args"), state.get("args") if isinstance(state, Mapping) else None):
        if isinstance(given, Mapping) and is_plain(given):
            return {str(k): v for k, v in given.items()}
    return {}


def normalisation_of(
    archive: zipfile.ZipFile, root: str, state: Any
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation by which a network's own transforms normalise images; None if it has none."""
    held = state.get("transforms") if isinstance(state, Mapping) else None
    inner = (
        held.state.get("transforms") if isinstance(held, Held) and isinstance(held.state, Mapping) else None
    )
    for step in inner if isinstance(inner, list) else ():
        if isinstance(step, Held) and step.name.endswith(".Normalize") and isinstance(step.state, Mapping):
            pair = [step.state.get(key) for key in ("mean", "std")]
            if all(isinstance(one, HeldTensor) and math.prod(one.shape) in (1, 3) for one in pair):
                read = read_all(archive, root, dict(zip(("mean", "std"), pair, strict=True)))  # type: ignore[arg-type]
                pair = [read[key].tolist() for key in ("mean", "std")]
            if all(isinstance(one, list | tuple) and all(map(is_fraction, one)) for one in pair):
                return tuple(pair[0]), tuple(pair[1])  # type: ignore[arg-type]
    return None


def is_fraction(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_plain(value: Any) -> bool:
    """Whether a value is a tree of plain values, not too large."""
    if find_fault(value):
        return False
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
