"""A snapshot of a watched training: its weights go into MODEL, and it brings its batch and its loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unvanish.cli import data
from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.cli.subject import Subject


def restore(subject: Subject, path: Path) -> Subject:
    """The subject as it was at the snapshot's step; CallError if the snapshot is not of this model."""
    import torch
    from torch import nn

    held = data.load_file(path, "--snapshot")
    if not isinstance(held, dict) or "weights" not in held or "args" not in held:
        raise CallError(f"--snapshot {path} is not a snapshot of a watched training")
    try:
        subject.model.load_state_dict(held["weights"])
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CallError(f"--snapshot {path} does not fit {subject.name}: {first}") from error
    subject.model.train()
    torch.set_rng_state(held["random"]["cpu"])
    x: Any = held["args"] if len(held["args"]) != 1 else held["args"][0]
    x = held["kwargs"] if not held["args"] else x
    batch = x if held["target"] is None else (x, held["target"])
    loss = subject.loss
    if loss is None and held["loss"] in dir(nn):
        loss = getattr(nn, held["loss"])()
    return dataclasses.replace(subject, batch=batch, loss=loss)
