"""Checkpoints: weights as safetensors that describe themselves, and the whole state of a run in one file.

Notable:
- Every file is written whole or not at all: a temporary file, then a rename.
- `best` and `last.safetensors` carry specification, facts and metrics in their header, so each is a model by
  itself; a `.json` file of the same name holds the header for people.
- `last.state.safetensors` is what `resume` reads: one file, so it can never be half old and half new.
- Foreign `.pt` files are data, and no code runs from them: they are read with weights_only, and a full
  checkpoint, which holds a pickled network, by following its pickle without its classes (`inert.py`). The
  published names of layers are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unvanish.clinic.tensor_file import TensorFileError, read_tensors
from unvanish.core.bounds import parse_json
from unvanish.core.plain import plain
from unvanish.core.registry import suggest
from unvanish.lab.models.published_names import from_published
from unvanish.store.files import write_text, write_whole
from unvanish.train.checkpoint.about import find_fault
from unvanish.train.checkpoint.full import read_full
from unvanish.train.checkpoint.plan import describe_plan
from unvanish.train.checkpoint.tree import join, split
from unvanish.train.errors import TrainError

KEY = "unvanish"  # of the header
HEADER = 100_000_000  # bytes
HELD = 5_000_000  # values of a description
NESTED = ("model", "state_dict", "ema", "net")  # where foreign files keep their weights
PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: tensors by name, and its description ({} for a foreign file without a plan).

    `note`: what was taken of a full checkpoint, and what was left.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    note: str = ""


def save(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], *, readable: bool = False
) -> Path:
    """Write tensors and a description as one safetensors file; `readable`: the description also as JSON."""
    text = json.dumps(about)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path, "checkpoint", sync=True) as partial:
            save_file(_separate(tensors), str(partial), {KEY: text})
        if readable:
            write_text(path.with_suffix(".json"), json.dumps(plain(about), indent=1) + "\n", "description")
    except (OSError, SafetensorError) as error:
        own = (
            str(error)
            if str(error).startswith("cannot write")
            else f"cannot write the checkpoint {path}: {error}"
        )
        raise TrainError(own) from error
    return path


def save_state(path: Path, state: Mapping[str, Any]) -> Path:
    """Write a tree of plain values and tensors as one file."""
    tensors: dict[str, Tensor] = {}
    tree = split(state, tensors, "state")
    return save(path, tensors, {"state": tree})


def load_state(path: Path) -> dict[str, Any]:
    """The tree that `save_state` wrote; TrainError if the file holds none."""
    found = load(path)
    if "state" not in found.about:
        raise TrainError(
            f"{path} holds no state of a run, only weights; give resume= the run's folder, or start a new run"
            f" with pretrained={path}"
        )
    try:
        tree: dict[str, Any] = join(found.about["state"], found.tensors)
    except (KeyError, TypeError) as error:
        raise TrainError(f"the state in {path} is damaged: it names {error}, which is not there") from error
    return tree


def load(path: str | Path) -> Checkpoint:
    """Read .safetensors, .pt or .pth; TrainError if the file is missing, damaged or no checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise TrainError(f"there is no checkpoint {path}{_suggest_file(path)}")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        content = read_tensors(path)
    except TensorFileError as error:
        if not error.code:
            raise TrainError(f"{path}: {error}") from error
        return _load_full(path)
    return Checkpoint(path, _find_weights(content, path), {})


def _load_full(path: Path) -> Checkpoint:
    """The weights of a full checkpoint, with the description that its plan gives."""
    try:
        found = read_full(path)
    except TensorFileError as error:
        more = "; save model.state_dict() in the program that wrote it" if error.code else ""
        raise TrainError(f"{path}: {error}{more}") from error
    about = describe_plan(found, path)
    if fault := find_fault(about) if about else "":
        raise TrainError(f"{path}: {fault}")
    return Checkpoint(path, found.tensors, about, found.line)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, strict: bool = True) -> list[str]:
    """Load weights by name; returns the names that were not loaded. TrainError names what does not fit.

    If not `strict`, tensors of the model that are missing or of another shape (another number of classes)
    keep their values.
    """
    own = model.state_dict()
    given = _strip_prefixes(from_published(model, tensors), own)
    shapes = [
        f"{k} is {tuple(given[k].shape)} in the file and {tuple(own[k].shape)} in the model"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    missing = [k for k in own if k not in given]
    if strict and (shapes or missing):
        raise TrainError(_describe_misfit(path, shapes, missing, [k for k in given if k not in own]))
    fitting = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    if not fitting:
        raise TrainError(_describe_misfit(path, shapes, missing, [k for k in given if k not in own]))
    model.load_state_dict(fitting, strict=False)
    return [k for k in own if k not in fitting]


def _load_safetensors(path: Path) -> Checkpoint:
    try:
        _refuse_header(path)
        with safe_open(str(path), framework="pt") as file:
            about = parse_json((file.metadata() or {}).get(KEY, "{}"), HELD)
            if fault := find_fault(about):
                raise ValueError(fault)
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError, TypeError, AttributeError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainError(f"{path} is not a safetensors file, or it is damaged: {first}") from error
    return Checkpoint(path, tensors, about)


def _refuse_header(path: Path) -> None:
    """ValueError for a header that is longer than its file, or than any of ours."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(HEADER, path.stat().st_size - 8):
        raise ValueError(f"its header says that it has {length:,} bytes")


def _find_weights(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in a foreign file."""
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise TrainError(f"{path} holds no state_dict; save one with torch.save(model.state_dict(), ...)")
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def _strip_prefixes(tensors: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The tensors without the prefixes that wrappers put before names."""
    known, found = set(own), dict(tensors)
    for prefix in PREFIXES:
        if not known & set(found) and all(k.startswith(prefix) for k in found):
            found = {k.removeprefix(prefix): v for k, v in found.items()}
    return found


def _describe_misfit(path: str | Path, shapes: list[str], missing: list[str], extra: list[str]) -> str:
    parts = [f"{path} does not fit this model"]
    for what, names in (("shapes differ", shapes), ("missing", missing), ("not in the model", extra)):
        if names:
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{what}: {', '.join(names[:3])}{more}")
    near = suggest(missing[0], extra) if missing and extra else ""
    return "; ".join(parts) + near + "; build the model that it was saved from"


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, contiguous, none sharing memory (tied weights are written twice)."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in seen else value
        seen.add(place)
    return found


def _suggest_file(path: Path) -> str:
    there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return suggest(path.name, there) or ("" if path.parent.is_dir() else f" (no folder {path.parent})")
