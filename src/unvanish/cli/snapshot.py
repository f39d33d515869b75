"""A snapshot of a watched training: its weights go into MODEL, and it brings its batch and its loss.

Notable: a snapshot is a file that anybody may have made: each of its parts is checked before it is used, and
its loss is a loss of torch.nn or none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unvanish.cli import data
from unvanish.cli.errors import CallError
from unvanish.core.names import show

if TYPE_CHECKING:
    from unvanish.cli.subject import Subject


def restore(subject: Subject, path: Path) -> Subject:
    """The subject as it was at the snapshot's step; CallError if the snapshot is not of this model."""
    import torch

    held = data.load_file(path, "--snapshot")
    if not isinstance(held, dict) or "weights" not in held or "args" not in held:
        raise CallError(f"--snapshot {path} is not a snapshot of a watched training")
    if fault := _find_fault(held):
        raise CallError(f"--snapshot {path} is damaged: {fault}")
    try:
        subject.model.load_state_dict(held["weights"])
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CallError(f"--snapshot {path} does not fit {subject.name}: {show(first)[:200]}") from error
    subject.model.train()
    try:
        torch.set_rng_state(held["random"]["cpu"])
    except RuntimeError as error:
        raise CallError(f"--snapshot {path} is damaged: {show(error)[:100]}") from error
    x: Any = held["args"] if len(held["args"]) != 1 else held["args"][0]
    x = held["kwargs"] if not held["args"] else x
    batch = x if held["target"] is None else (x, held["target"])
    loss = subject.loss
    if loss is None and held["loss"] is not None:
        loss = _make_loss(held["loss"])
    return dataclasses.replace(subject, batch=batch, loss=loss)


def _find_fault(held: Mapping[str, Any]) -> str:
    """Which part of a snapshot is not what a watch writes, or an empty text."""
    import torch

    def are_tensors(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items()
        )

    random = held.get("random")
    state = random.get("cpu") if isinstance(random, Mapping) else None
    parts = {
        "its weights are no tensors": are_tensors(held["weights"]),
        "its args are no list": isinstance(held["args"], list | tuple),
        "its kwargs are no table": _are_words(held.get("kwargs")),
        "its random state is none": isinstance(state, torch.Tensor) and state.dtype is torch.uint8,
        "it has no target": "target" in held,
        "its loss is no word": "loss" in held and isinstance(held["loss"], str | None),
        "it has no input": bool(held["args"]) or bool(held.get("kwargs")),
    }
    return next((fault for fault, fits in parts.items() if not fits), "")


def _are_words(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _make_loss(name: str) -> Any:
    """A loss of torch.nn by its name, with its own settings; None for any other name."""
    from torch.nn.modules import loss as losses

    kind = vars(losses).get(name)
    known = isinstance(kind, type) and issubclass(kind, losses._Loss) and not name.startswith("_")
    return kind() if known else None  # type: ignore[misc]
