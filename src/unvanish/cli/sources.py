"""What a call examines: the model that MODEL names, its batch, and its loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from unvanish.cli.errors import CallError
from unvanish.cli.subject import Batch, Subject


def load_subject(
    text: str,
    seed: int,
    data: str | None = None,
    inputs: Sequence[str] = (),
    size: int = 8,
    allow_code: bool = False,
) -> Subject:
    """The subject that MODEL names; the network of a YAML is built for the data or the input of the call."""
    import torch

    from unvanish.cli import lab, model, reference

    torch.manual_seed(seed)
    if text.endswith(lab.YAML):
        return lab.load_subject(text, data, inputs, size, seed, reference.allow_code(allow_code))
    return model.load(text)


def choose_batch(
    subject: Subject, data: str | None, inputs: list[str], dtypes: list[str], size: int, seed: int
) -> Batch:
    """The batch of the call, else the one that came with the model, else a random one that fits it."""
    from unvanish.cli import data as source
    from unvanish.cli import lab

    if data is not None and inputs:
        raise CallError("--data and --input are both given; give one of them")
    if dtypes and not inputs:
        raise CallError("--dtype is the type of --input; give --input too")
    if data is not None and data.endswith(lab.YAML):
        return Batch(subject.batch) if subject.name.endswith(lab.YAML) else lab.load_batch(data, size, seed)
    if data is not None:
        return Batch(source.load(data))
    if inputs or (subject.batch is None and subject.random_batch is not None):
        return source.make_random(subject, inputs, dtypes, size, seed)
    if subject.batch is None:
        ways = "--data FILE.py:callable, --data FILE.pt, or a shape without the batch: --input 3,224,224"
        raise CallError(f"MODEL {subject.name} came without a batch; give {ways}")
    return Batch(subject.batch)


def choose_loss(subject: Subject, batch: Batch, loss: str | None, seed: int) -> tuple[Any, tuple[str, ...]]:
    """The loss of the call, else the one that came with the model; and everything that is assumed."""
    from unvanish.cli import loss as source

    if loss is None:
        return subject.loss, batch.assumptions
    function, more = source.load(loss, _has_target(subject.model, batch.value), seed)
    return function, batch.assumptions + more


def _has_target(model: Any, batch: Any) -> bool:
    """Whether a batch holds a target; of one that fits in no way, or is drawn later, `check` says it."""
    from torch.nn.functional import mse_loss

    from unvanish.probes import CheckError
    from unvanish.probes.batches import read_batch

    if isinstance(batch, Iterator):  # reading it would use it up
        return True
    try:
        found = read_batch(model, batch, mse_loss).batch
    except CheckError:
        return True
    return isinstance(found, (tuple, list)) and len(found) == 2
