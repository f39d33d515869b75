"""Networks and data from YAML for the commands that examine: built, with a batch and the task's loss.

Notable:
- With a data YAML the network is built for its classes or vocabulary, and the first training batch is taken.
- Without one the batch is random, of `--input`'s shape or of the network's own; that is stated as assumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from unvanish.cli.errors import CallError
from unvanish.cli.subject import Batch, Subject

YAML = (".yaml", ".yml")
FIRST_WORD = 4  # ids below stand for padding, begin, end and unknown


@contextlib.contextmanager
def yaml_errors() -> Iterator[None]:
    """What is wrong with a YAML or its data, as one line."""
    from unvanish.lab.data import DataError
    from unvanish.lab.models import SpecError

    try:
        yield
    except (SpecError, DataError) as error:
        raise CallError(str(error)) from error


def subject(text: str, data: str | None, inputs: Sequence[str], size: int, seed: int) -> Subject:
    """The network that a YAML's name stands for, with its batch where the data are a YAML too."""
    from unvanish.lab.models import build, read
    from unvanish.lab.tasks import task

    with yaml_errors():
        spec = read(text)
        loss = task(spec.task).loss()
        if data is not None and data.endswith(YAML):
            opened = _opened(data, spec.task, size, seed)
            net = build(spec, **opened.facts)
            return Subject(text, net, next(iter(opened.train)), loss)
        net = build(spec, **_facts(spec, inputs))
    return Subject(text, net, loss=loss, random_batch=lambda *how: _random(net, *how))


def batch(data: str, size: int, seed: int) -> Batch:
    """The first training batch of a data YAML."""
    with yaml_errors():
        return Batch(next(iter(_opened(data, None, size, seed).train)))


def _opened(data: str, task: str | None, size: int, seed: int) -> Any:
    from unvanish.lab.data import open_data

    return open_data(data, task=task, batch=size, seed=seed, augment=False)


def _facts(spec: Any, inputs: Sequence[str]) -> dict[str, Any]:
    """What the shape of `--input` says of the data."""
    from unvanish.cli.data import _shape

    if not inputs:
        return {}
    shape = _shape(inputs[0])
    if spec.inputs == ("image",) and len(shape) == 3:
        return {"channels": shape[0], "size": shape[1:]}
    if spec.task == "sequence" and len(shape) == 2:
        return {"length": shape[0], "features": shape[1]}
    return {"length": shape[0]} if len(shape) == 1 else {}


def _random(net: Any, size: int, seed: int, shape: tuple[int, ...] | None) -> Batch:
    """Random inputs and targets of a network's own kind."""
    import torch

    from unvanish.lab.models.assembly import example
    from unvanish.lab.tasks import task

    made = torch.Generator().manual_seed(seed)
    x = [_filled(net, i, blank, made) for i, blank in enumerate(example(net.spec, net.facts, size, "cpu"))]
    if shape is not None and len(x) == 1 and tuple(x[0].shape[1:]) != shape:
        given, reads = ",".join(map(str, shape)), tuple(x[0].shape[1:])
        raise CallError(f"--input {given} does not fit {net.spec.name}, which reads {reads}")
    y = task(net.spec.task).invented(size, net.facts, made)
    y = _target(net, x, made) if y is None else y
    told = (
        f"the batch is random, seed {seed}: {', '.join(str(tuple(t.shape)) for t in x)}, with random targets"
    )
    return Batch((x[0] if len(x) == 1 else tuple(x), y), (told,))


def _filled(net: Any, index: int, blank: Any, made: Any) -> Any:
    import torch

    if blank.is_floating_point():
        return torch.randn(blank.shape, generator=made)
    tables = [m.num_embeddings for m in net.modules() if isinstance(m, torch.nn.Embedding)]
    below = tables[min(index, len(tables) - 1)] if tables else FIRST_WORD + 1
    return torch.randint(FIRST_WORD, max(below, FIRST_WORD + 1), blank.shape, generator=made)


def _target(net: Any, x: list[Any], made: Any) -> Any:
    """Random targets of the outputs' shape: classes, or numbers where a sequence network has one output."""
    import torch

    with torch.no_grad():
        out = net.eval()(*x)
    net.train()
    *shape, classes = out.shape
    if net.spec.task == "sequence" and "classes" not in net.facts and len(shape) == 1:
        return torch.randn(shape if classes == 1 else out.shape, generator=made)
    least = FIRST_WORD if net.spec.task in ("language", "translate") else 0
    return torch.randint(min(least, classes - 1), classes, shape, generator=made)
