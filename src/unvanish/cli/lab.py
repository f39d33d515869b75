"""Networks and data from YAML for the commands that examine: a network with a batch and the task's loss.

Notable:
- With a data YAML the network gets its classes or vocabulary, and the batch is the first one of the training.
- Otherwise the batch is random, of the shape of `--input` or the network's own, and the report says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unvanish.cli.errors import CallError
from unvanish.cli.subject import Batch, Subject

YAML = (".yaml", ".yml")
FIRST_WORD = 4  # lower ids are padding, begin, end and unknown


@contextlib.contextmanager
def yaml_errors() -> Iterator[None]:
    """Turn an error of a YAML or its data into a CallError."""
    from unvanish.lab.data import DataError
    from unvanish.lab.models import SpecError

    try:
        yield
    except (SpecError, DataError) as error:
        raise CallError(str(error)) from error


def load_subject(
    text: str, data: str | None, inputs: Sequence[str], size: int, seed: int, allow_code: bool = False
) -> Subject:
    """The network of a YAML; with its batch if the data are a YAML too."""
    from unvanish.lab.models import build, read
    from unvanish.lab.tasks import task

    with yaml_errors(), network_errors(text):
        spec = read(text, allow_code=allow_code)
        loss = task(spec.task).loss()
        if data is not None and data.endswith(YAML):
            opened = _open(data, spec.task, size, seed)
            net = build(spec, **opened.facts)
            return Subject(text, net, next(iter(opened.train)), loss, origin=Path(text))
        net = build(spec, **_facts(spec, inputs))

    def draw(size: int, seed: int, shape: tuple[int, ...] | None) -> Batch:
        with network_errors(text):
            return _make_random(net, size, seed, shape)

    return Subject(text, net, loss=loss, random_batch=draw, origin=Path(text))


@contextlib.contextmanager
def network_errors(name: str) -> Iterator[None]:
    """Turn what fails in a YAML's network, when it is built or first run, into a CallError of one line."""
    from unvanish.lab.data import DataError
    from unvanish.lab.models import SpecError

    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if isinstance(error, SpecError | DataError):
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise CallError(f"{name}: the network cannot be run: {type(error).__name__}: {first}") from error


def load_batch(data: str, size: int, seed: int) -> Batch:
    """The first training batch of a data YAML."""
    with yaml_errors(), network_errors(data):
        return Batch(next(iter(_open(data, None, size, seed).train)))


def _open(data: str, task: str | None, size: int, seed: int) -> Any:
    from unvanish.lab.data import open_data

    return open_data(data, task=task, batch=size, seed=seed, augment=False)


def _facts(spec: Any, inputs: Sequence[str]) -> dict[str, Any]:
    """The facts of the data that the shape of `--input` gives."""
    from unvanish.cli.data import read_shape

    if not inputs:
        return {}
    shape = read_shape(inputs[0])
    if spec.inputs == ("image",) and len(shape) == 3:
        return {"channels": shape[0], "size": shape[1:]}
    if spec.task == "sequence" and len(shape) == 2:
        return {"length": shape[0], "features": shape[1]}
    return {"length": shape[0]} if len(shape) == 1 else {}


def _make_random(net: Any, size: int, seed: int, shape: tuple[int, ...] | None) -> Batch:
    """Random inputs and targets that fit a network."""
    import torch

    from unvanish.lab.models.assembly import example
    from unvanish.lab.tasks import task

    generator = torch.Generator().manual_seed(seed)
    blanks = example(net.spec, net.facts, size, "cpu")
    x = [_fill(net, i, blank, generator) for i, blank in enumerate(blanks)]
    if shape is not None and len(x) == 1 and tuple(x[0].shape[1:]) != shape:
        given, reads = ",".join(map(str, shape)), tuple(x[0].shape[1:])
        raise CallError(f"--input {given} does not fit {net.spec.name}, which reads {reads}")
    y = task(net.spec.task).invent_targets(size, net.facts, generator)
    y = _make_target(net, x, generator) if y is None else y
    shapes = ", ".join(str(tuple(t.shape)) for t in x)
    assumption = f"the batch is random, seed {seed}: {shapes}, with random targets"
    return Batch((x[0] if len(x) == 1 else tuple(x), y), (assumption,))


def _fill(net: Any, index: int, blank: Any, generator: Any) -> Any:
    import torch

    if blank.is_floating_point():
        return torch.randn(blank.shape, generator=generator)
    tables = [m.num_embeddings for m in net.modules() if isinstance(m, torch.nn.Embedding)]
    below = tables[min(index, len(tables) - 1)] if tables else FIRST_WORD + 1
    return torch.randint(FIRST_WORD, max(below, FIRST_WORD + 1), blank.shape, generator=generator)


def _make_target(net: Any, x: list[Any], generator: Any) -> Any:
    """Random targets of the outputs' shape: classes, or numbers for a sequence network without classes."""
    import torch

    with torch.no_grad():
        out = net.eval()(*x)
    net.train()
    *shape, classes = out.shape
    if net.spec.task == "sequence" and "classes" not in net.facts and len(shape) == 1:
        return torch.randn(shape if classes == 1 else out.shape, generator=generator)
    least = FIRST_WORD if net.spec.task in ("language", "translate") else 0
    return torch.randint(min(least, classes - 1), classes, shape, generator=generator)
