"""The first batches of a loader: anything that can be iterated and is no batch itself.

Notable: the process's random state, and that of the loader's own generators, is as it was afterwards, so a
shuffled training that follows draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset

from unvanish.probes.errors import CheckError
from unvanish.probes.fields import is_array
from unvanish.probes.intact import intact

BATCHES = (Tensor, PackedSequence, Mapping, tuple, list, set, frozenset, str, bytes, nn.Module)

FIELDS = ("__dataclass_fields__", "__pydantic_fields__", "__attrs_attrs__")  # of classes that are records


def is_loader(value: Any) -> bool:
    """Whether a value yields batches; CheckError for a dataset, which yields samples."""
    if isinstance(value, BATCHES) or value is None:
        return False
    if isinstance(value, (DataLoader, Iterator)):
        return True
    rows = isinstance(value, Dataset) and not isinstance(value, IterableDataset)
    if rows or hasattr(type(value), "column_names"):  # as Hugging Face's
        raise CheckError("a Dataset yields single samples; give a DataLoader over it, or one batch")
    record = callable(getattr(value, "keys", None)) or any(hasattr(type(value), name) for name in FIELDS)
    return isinstance(value, Iterable) and not record and not is_array(value)


def take_batches(loader: Any, most: int) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The first batches of a loader, and how they were got; CheckError if it yields none, or raises."""
    sampler = getattr(loader, "sampler", None)
    with (
        intact(getattr(loader, "generator", None), getattr(sampler, "generator", None), off=()) as kept,
        kept,
    ):
        try:
            found = tuple(islice(iter(loader), most))
        except Exception as error:
            raise CheckError(f"the loader raised {type(error).__name__}: {error}") from error
    if not found:
        raise CheckError("the loader yields no batch; give one with at least one batch")
    taken = "the first batch" if most == 1 else f"the first {len(found)} batches"
    name = f"{taken} of the {type(loader).__name__} was examined"
    if len(found) > 1:
        name = (
            f"the first of {len(found)} batches of the {type(loader).__name__} was examined, the others "
            "train and judge"
        )
    if isinstance(loader, Iterator):
        behind = "it" if len(found) == 1 else "them"
        return found, (f"{name}; the iterator has moved on behind {behind}",)
    return found, (name,)
