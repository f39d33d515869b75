"""How the user's batch, model and loss fit together: what is passed, what comes out, and which is the loss.

Notable:
- A batch is a tensor, an (x, y) pair, or a dict passed as keywords; in a pair, x may be a tuple (positional
  arguments) or a dict (keywords). An object of a class of its own, or a list of texts, is one argument. What
  else a loader yields is read as one of these by `batches`.
- Float inputs enter as clones that require a gradient, so the depth axis reaches the input; cloned, because a
  model may write to its input.
- Without a loss the output's own `.loss` serves, else the inner product with a seeded random cotangent.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unvanish.probes.errors import CheckError
from unvanish.probes.intact import PLAIN

Objective = Callable[[Any], Tensor]
NO_DATA = (bytes, type, nn.Module)  # objects in which a model finds no tensors of a batch


@dataclass(frozen=True)
class Call:
    """The arguments of one forward, their float leaves by name, and what turns an output into the loss."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    objective: Objective
    kind: str  # "loss", "output.loss" or "random cotangent"; "" if the output decides
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    originals: Mapping[str, Tensor] = field(default_factory=dict)
    given: tuple[Tensor, ...] = ()  # every tensor of the batch, the target included
    batch_size: int | None = None
    targets: tuple[Tensor, ...] = ()  # what the loss is given beside the output

    def run(self, model: Any, watched: Any = None) -> Any:
        """The output of a model. `watched`: who is told, if the loss is made in here too."""
        return model(*self.args, **self.kwargs)

    @property
    def needs_output(self) -> bool:
        """Whether only the output decides what the objective is."""
        return self.kind == ""


class Targets(tuple[Any, ...]):
    """Several targets, each an argument of the loss."""

    __slots__ = ()


class Runner(ABC):
    """In place of a loss: what runs the model on a batch by itself, and returns the loss."""

    @abstractmethod
    def prepare(self, batch: Any, gradients: bool) -> Call:
        """The call; `gradients`: float inputs require one."""


def prepare(batch: Any, loss: Callable[..., Any] | Runner | None, *, gradients: bool = True) -> Call:
    """Read the batch; CheckError says what a batch may be.

    `gradients=False` passes float inputs as they are, for models that refuse inputs that require one.
    """
    if isinstance(loss, Runner):
        return loss.prepare(batch, gradients)
    needs = 0 if loss is None else count_needed(loss)
    x, rest, whole = _split(batch, needs)
    listed = isinstance(x, list) and any(True for _ in tensors_in(x))
    several = listed or (isinstance(x, tuple) and not isinstance(x, PackedSequence))
    args, kwargs = ((), x) if isinstance(x, Mapping) else (tuple(x), {}) if several else ((x,), {})
    tensors = dict(_leaves(args, kwargs))
    if not tensors and not any(_is_object(value) for value in (*args, *kwargs.values())):
        raise CheckError(
            f"the batch holds no tensor (it is {_describe(batch)}); "
            "give a tensor, an (x, y) pair, or a dict of keywords"
        )
    known = tensors.values() if tensors else tensors_in(args)
    sizes = [int(t.shape[0]) for t in known if t.ndim and not t.is_nested]
    size = next((n for n in sizes if n), 0 if sizes else None)
    if size == 0:
        raise CheckError("the batch is empty: its first dimension is 0; give at least one sample")
    leaves: dict[str, Tensor] = {}

    def enter(name: str, value: Tensor) -> Tensor:
        if not gradients or not value.is_floating_point() or value.layout is not torch.strided:
            return value
        leaves[name] = value.detach().clone().requires_grad_()
        return leaves[name].clone()

    args, kwargs = map_tensors(args, kwargs, enter)
    objective, kind = _objective(loss, needs, rest, whole)
    targets = tuple(tensors_in(rest)) if needs != 1 else ()
    given = (*tensors.values(), *tensors_in((rest, whole)))
    return Call(
        args,
        kwargs,
        objective,
        kind,
        inputs=leaves,
        originals=tensors,
        given=given,
        batch_size=size,
        targets=targets,
    )


def describe(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """A call that is not ours: its arguments as they are; nothing is known of the loss."""
    tensors = dict(_leaves(args, kwargs))
    size = next(
        (int(t.shape[0]) for t in tensors.values() if t.ndim and not t.is_nested and t.shape[0]), None
    )
    given = tuple(tensors.values())
    return Call(args, kwargs, own_objective, "loss", originals=tensors, given=given, batch_size=size)


def _split(batch: Any, needs: int) -> tuple[Any, tuple[Any, ...], Any]:
    if isinstance(batch, (Tensor, PackedSequence)):
        return batch, (), batch
    if isinstance(batch, Mapping):
        if bad := [key for key in batch if not isinstance(key, str)]:
            raise CheckError(f"a dict batch is passed as keywords, but its key {bad[0]!r} is no text")
        return batch, (), batch
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2 and needs == 1:
            return batch, (), batch
        if len(batch) == 2:
            y = batch[1]
            return batch[0], tuple(y) if isinstance(y, Targets) else (y,), batch
        if len(batch) == 1:
            return batch[0], (), batch
        raise CheckError(
            f"the batch is a {type(batch).__name__} of {len(batch)}; give an (x, y) pair, with x a tuple "
            "if the model takes several arguments, or a dict of keywords"
        )
    if _is_object(batch):
        return batch, (), batch
    raise CheckError(f"the batch is {_describe(batch)}; give a tensor, an (x, y) pair, or a dict of keywords")


def _is_object(value: Any) -> bool:
    """Whether a model may find its tensors in a value: an object of a class, or texts in a list."""
    if isinstance(value, (tuple, list, set, Mapping)):
        return bool(value)
    return type(value) not in PLAIN and not isinstance(value, NO_DATA) and not inspect.isroutine(value)


def _describe(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def count_needed(loss: Callable[..., Any]) -> int:
    """How many positional arguments a loss needs; 2 if unknown."""
    kind: Any = type(loss)
    if kind.__module__ == "torch.nn.modules.loss" and "forward" not in vars(loss):
        return _arity_of(kind)
    try:
        target = loss.forward if isinstance(loss, nn.Module) else loss
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return 2
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return 2
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


@cache
def _arity_of(kind: type[nn.Module]) -> int:
    """How many one of torch's own losses needs: its signature is slow to read."""
    return count_needed(partial(kind.forward, None))


def _objective(
    loss: Callable[..., Any] | None, needs: int, rest: tuple[Any, ...], whole: Any
) -> tuple[Objective, str]:
    if loss is None:
        return own_objective, ""
    if not callable(loss):
        raise CheckError(
            f"loss is {_describe(loss)} and cannot be called; give a function of (output, y) or (output)"
        )
    if not rest and needs >= 2 and isinstance(whole, Mapping):
        rest = (whole,)
    if not rest and needs >= 2:
        raise CheckError(
            "the loss takes (output, y), but the batch has no y; give the batch as an (x, y) pair"
        )
    given = rest if needs != 1 else ()
    return lambda output: loss(output, *given), "loss"


def own_objective(output: Any) -> Tensor:
    """The output's own loss, or its inner product with a seeded random cotangent of unit norm."""
    own = own_loss(output)
    return random_cotangent(output) if own is None else own


def random_cotangent(output: Any) -> Tensor:
    """The inner product of an output with a seeded random cotangent of unit norm."""
    floats = predictions(output)
    parts = [t for t in floats if t.requires_grad] or floats
    if not parts:
        raise CheckError(f"the model's output ({_describe(output)}) holds no float tensor; give a loss")
    generator = torch.Generator().manual_seed(0)
    total = sum(p.numel() for p in parts) ** 0.5
    drawn = (torch.randn(p.shape, generator=generator) / total for p in parts)
    terms = [
        (p.float() * c.to(p.device)).sum() if p.dtype.itemsize < 4 else (p * c.to(p.device, p.dtype)).sum()
        for p, c in zip(parts, drawn, strict=True)
    ]
    return torch.stack(terms).sum() if len({t.dtype for t in terms}) == 1 else sum(terms[1:], terms[0])


def predictions(output: Any) -> list[Tensor]:
    """The float tensors of an output, its own loss left out."""
    own = own_loss(output)
    return [t for t in tensors_in(output) if t.is_floating_point() and t is not own]


def own_loss(output: Any) -> Tensor | None:
    """`output.loss` or `output["loss"]`; None if it is not a tensor."""
    value = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return value if isinstance(value, Tensor) else None


def tensors_in(value: Any, depth: int = 6) -> list[Tensor]:
    """Every tensor in nested tuples, lists, dicts, dataclasses and named tuples."""
    found: list[Tensor] = []
    _gather(value, depth, found)
    return found


def _gather(value: Any, depth: int, found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, PackedSequence):
        found.append(value.data)
    elif not depth or type(value) in PLAIN:
        return
    elif isinstance(value, (tuple, list)):
        for item in value:
            if isinstance(item, Tensor):
                found.append(item)
            elif type(item) not in PLAIN:
                _gather(item, depth - 1, found)
    elif isinstance(value, Mapping):
        for item in value.values():
            _gather(item, depth - 1, found)
    elif (is_dataclass(value) or isinstance(value, SimpleNamespace)) and not isinstance(value, type):
        _gather(vars(value), depth - 1, found)


def floats(values: Iterable[Any], depth: int = 1) -> list[Tensor]:
    """The floating-point tensors among arguments, and in tuples, lists and dicts among these."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                found.append(value)
        elif type(value) not in PLAIN:
            found += [t for t in tensors_in(value, depth) if t.is_floating_point()]
    return found


def _leaves(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []

    def see(name: str, value: Tensor) -> Tensor:
        found.append((name, value))
        return value

    map_tensors(args, kwargs, see)
    return iter(found)


def map_tensors(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], change: Callable[[str, Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments with their tensors changed; `change` is told a name of each."""

    def down(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(name, value)
        if isinstance(value, PackedSequence):
            return value._replace(data=change(name, value.data))
        if (isinstance(value, tuple) and type(value) is tuple) or isinstance(value, list):
            return type(value)(down(f"{name}.{i}", v) for i, v in enumerate(value))
        if type(value) is dict:
            return {k: down(f"{name}.{k}", v) for k, v in value.items()}
        return value

    named = ["input"] if len(args) == 1 else [f"input.{i}" for i in range(len(args))]
    return tuple(down(n, a) for n, a in zip(named, args, strict=True)), {
        k: down(k, v) for k, v in kwargs.items()
    }
