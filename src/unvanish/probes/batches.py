"""Whatever a loader yields, read as what a forward takes: a tensor, an (x, y) pair, or a dict of keywords.

Notable:
- A tensor, a pair with a tensor in front, and a dict whose keys the forward takes pass as they are; no
  signature is read for the usual pair.
- Names bind first: the fields of a dict, a dataclass, a named tuple or a graph's data go to the forward's
  parameters of these names. A target that the forward does not take goes to the loss.
- Positions bind next: of several, the last are targets, as many as the loss needs.
- Which of several readings was taken is said (`Reading.notes`). What fits in no way is refused, with what was
  given, what is taken, and `step=`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unvanish.probes import calls
from unvanish.probes.arrays import convert, move
from unvanish.probes.calls import Targets
from unvanish.probes.errors import CheckError
from unvanish.probes.fields import describe_value, holds_numbers, read_fields
from unvanish.probes.intact import unwrap
from unvanish.probes.loaders import is_loader, take_batches
from unvanish.probes.steps import TrainingStep, find_own_step, read_step
from unvanish.probes.takes import ANYTHING, Takes, read_forward, read_signature
from unvanish.probes.yolo import is_detection, run_detection

TARGETS = ("labels", "label", "targets", "target", "y", "y_true", "label_ids", "ground_truth", "gt")
WHOLE = (
    "batch",
    "data",
    "graph",
    "sample",
    "features",
    "inputs",
)  # a single parameter that is given a whole record
MORE = 8  # targets of a loss that takes any number
STEP = "give step=lambda model, batch: loss, which runs the model as your training does"


@dataclass(frozen=True)
class Reading:
    """A batch as `calls` takes it, what stands for the loss, and in sentences how it was read.

    `more`: further batches of a loader, read in the same way.
    """

    batch: Any
    loss: Any = None
    notes: tuple[str, ...] = ()
    more: tuple[Any, ...] = ()


def read_batch(
    model: Any, batch: Any, loss: Any = None, *, step: Any = None, most: int = 1, own: bool = True
) -> Reading:
    """How a batch, or the first of a loader's, is given to a model and a loss.

    `step`: runs the model in their place; `most`: batches of a loader, at most; `own`: without a loss the
    model's own `training_step` serves. CheckError says what does not fit.
    """
    if step is not None and loss is not None:
        raise CheckError("give either loss or step: the step returns the loss by itself")
    if not isinstance(model, nn.Module) or isinstance(loss, calls.Runner):
        return Reading(batch, loss)
    bare = unwrap(model)
    notes: list[str] = []
    batches: Sequence[Any] = (batch,)
    said: Sequence[str]
    if is_loader(batch):
        batches, said = take_batches(batch, most)
        batches, moved = move(batches, bare)
        notes += [*said, *moved]
    program = None if step is None else read_step(step)
    if program is None and loss is None and own and is_detection(bare, batches[0]):
        program = TrainingStep(run_detection, "the model's own loss")
        notes.append("the loss is the model's own for a batch of Ultralytics")
    if program is None and loss is None and own and (program := find_own_step(bare)) is not None:
        notes.append("the loss is what the model's own training_step returns")
    if program is not None:
        return Reading(batches[0], program, tuple(notes), tuple(batches[1:]))
    first, *rest = batches
    found, said = _bind(bare, first, loss)
    others = [_bind(bare, other, loss)[0] for other in rest]
    return Reading(found, loss, (*notes, *said), tuple(others))


def _bind(model: nn.Module, batch: Any, loss: Any) -> tuple[Any, Sequence[str]]:
    """A batch bound to the parameters of a forward and a loss, and how, in sentences."""
    if _is_usual(batch, loss):
        return batch, ()
    notes: list[str] = []
    batch = convert(batch, model, notes)
    if loss is None or callable(loss):
        batch = Binding(read_forward(model), loss, notes).bind(batch)
    return batch, notes


def _is_usual(batch: Any, loss: Any) -> bool:
    """Whether a batch passes as it is, whatever the signatures say."""
    if isinstance(batch, (Tensor, PackedSequence)) or batch is None:
        return True
    pair = type(batch) in (tuple, list) and len(batch) == 2
    return pair and loss is not None and isinstance(batch[0], Tensor) and isinstance(batch[1], Tensor)


@dataclass
class Binding:
    """What a forward and a loss take, and the sentences that say how a batch was read."""

    takes: Takes
    loss: Callable[..., Any] | None
    notes: list[str] = field(default_factory=list)

    @property
    def needs(self) -> int:
        """How many arguments the loss needs, the output included; 0 without one."""
        return 0 if self.loss is None else calls.count_needed(self.loss)

    def bind(self, batch: Any) -> Any:
        """The batch as a tensor, a pair, a dict, or one tuple of arguments."""
        if isinstance(batch, (Tensor, PackedSequence, str, bytes)):
            return batch
        if isinstance(batch, Mapping):
            return self._bind_names(dict(batch), batch)
        if type(batch) is list and (first := self._first_of(batch)) is not None:
            self.notes.append(f"the list was read as {len(batch)} batches, of which the first was taken")
            return self.bind(first)
        named = read_fields(batch)
        if named is not None and not (isinstance(batch, tuple) and not self._names_match(named)):
            return self._bind_names(named, batch)
        if isinstance(batch, (tuple, list)):
            parts = tuple(batch)
            return (
                batch
                if len(parts) < 2
                else self._bind_pair(batch)
                if len(parts) == 2
                else self._bind_several(batch)
            )
        return batch

    def _first_of(self, batch: list[Any]) -> Any:
        """The first of a list of batches; None if a list is one batch."""
        if not batch or len({type(part) for part in batch}) > 1 or isinstance(batch[0], (Tensor, str)):
            return None
        first = batch[0]
        if not holds_numbers(first) and read_fields(first) is None:
            return None
        if isinstance(first, (tuple, list)):
            spread = len(batch) <= 2 and self.takes.fits(len(first))  # a pair whose x are several arguments
            return None if spread or len(first) < 2 else first
        named = dict(first) if isinstance(first, Mapping) else read_fields(first)
        known = {name for name in named or () if self.takes.has(name)} if not self.takes.others else set()
        return first if known and self.takes.needed <= known and len(batch) != 2 else None

    def _names_match(self, named: Mapping[str, Any]) -> bool:
        """Whether the fields of a named tuple say more than their places."""
        free = [name for name in named if name not in TARGETS or self.needs < 2]
        return bool(free) and all(name in self.takes.names or name in TARGETS for name in free)

    # -- by name

    def _bind_names(self, named: dict[Any, Any], whole: Any) -> Any:
        """A record, its target apart if the forward does not take it."""
        plain = isinstance(whole, Mapping)
        if not named:
            return whole
        if any(not isinstance(name, str) for name in named):
            return (whole,) if self.takes.fits(1) and self.takes.most == 1 else whole
        if plain and self.takes.accepts(named):
            return whole
        present = [name for name in TARGETS if name in named and named[name] is not None]
        target = next((name for name in present if not self._keeps(name)), None)
        if target is None:
            given = self._fit(named, whole)
            return given if isinstance(given, dict) else (given,)
        given = self._fit({name: value for name, value in named.items() if name != target}, whole)
        if self.needs != 1:
            use = "goes to the loss" if self.loss is not None else "is left out, for there is no loss"
            self.notes.append(f"{target} of the batch is the target and {use}")
            return (_shorten(given), named[target])
        return given if isinstance(given, dict) else (given,)

    def _keeps(self, name: str) -> bool:
        """Whether a target goes into the forward: it takes it, and the loss does not ask for one."""
        return self.takes.has(name) and (name in self.takes.needed or self.needs < 2)

    def _fit(self, named: Mapping[str, Any], whole: Any) -> dict[str, Any] | tuple[Any, ...]:
        """Keywords or positional arguments for a forward."""
        taken = self.takes.has if isinstance(whole, Mapping) else self.takes.names.__contains__
        known = {name: value for name, value in named.items() if taken(name) and value is not None}
        known |= {
            name: value
            for name in self.takes.needed - set(known)
            if (value := _find(whole, name)) is not None
        }
        lone = self.takes.places[0] if self.takes.most == 1 and len(self.takes.names) <= 1 else ""
        if known and self.takes.needed <= set(known) and not (lone == "batch" and len(named) > 1):
            if left := [name for name, value in named.items() if name not in known and value is not None]:
                self.notes.append(
                    f"of the batch, {', '.join(left)} was not passed: the forward takes {self.takes.text}"
                )
            self.notes.append(f"the batch is passed by name: {', '.join(known)}")
            return known
        numbers = [name for name, value in named.items() if holds_numbers(value)]
        if lone not in WHOLE and isinstance(whole, Mapping) and len(numbers) == 1 and self.takes.fits(1):
            inner = named[numbers[0]]
            if isinstance(inner, Mapping):
                self.notes.append(f"{numbers[0]} of the batch holds what the model is given")
                return self._fit(inner, inner) if not self.takes.accepts(inner) else dict(inner)
            self.notes.append(f"{numbers[0]} of the batch is passed to the model")
            return (inner,)
        if (
            len(numbers) == 1
            and isinstance(inner := named[numbers[0]], Mapping)
            and self.takes.accepts(inner)
        ):
            self.notes.append(f"{numbers[0]} of the batch holds what the model is given, by name")
            return dict(inner)
        if self.takes.fits(1):
            self.notes.append(f"the batch, {_say(whole)}, is passed whole")
            return (whole,)
        raise self._refuse(whole)

    # -- by position

    def _bind_pair(self, pair: Sequence[Any]) -> Any:
        x, y = pair
        if self.needs == 1:
            return pair
        if isinstance(x, Mapping) or (named := read_fields(x)) is None:
            named = dict(x) if isinstance(x, Mapping) and all(isinstance(k, str) for k in x) else None
        if self.loss is None and not self._takes_first(x) and self.takes.fits(2):
            self.notes.append("both parts of the pair go to the forward, which takes two")
            return (tuple(pair),)
        if self.loss is None and isinstance(x, Tensor) and (answer := self._answer):
            self.notes.append(
                f"the forward was given x alone, not y as {answer}; a dict of keywords gives both"
            )
        if isinstance(x, Mapping) and self.takes.accepts(x):
            return pair
        if named is not None and not isinstance(x, tuple):
            return (_shorten(self._fit(named, x)), y)
        if isinstance(x, (tuple, list)) and not isinstance(x, PackedSequence) and holds_numbers(x):
            if self.takes.fits(len(x)):
                return pair
            if self.takes.fits(1):
                self.notes.append(f"x, {_say(x)}, is passed whole")
                return ((x,), y)
            raise self._refuse(pair)
        return pair

    def _takes_first(self, x: Any) -> bool:
        """Whether the first part of a pair alone is a complete call."""
        if isinstance(x, Mapping):
            return self.takes.accepts(x) or self.takes.fits(1)
        if type(x) not in (tuple, list) or not holds_numbers(x):
            return self.takes.fits(1)
        if type(x) is list and self._answer:  # images or records in front of labels, as in detection
            return False
        return self.takes.fits(1) or self.takes.fits(len(x))

    @property
    def _answer(self) -> str:
        """The forward's second parameter, if it is a target."""
        return next((name for name in self.takes.places[1:2] if name in TARGETS), "")

    def _bind_several(self, batch: Sequence[Any]) -> Any:
        """Three parts or more: the last are targets, as many as the loss needs and the forward leaves."""
        parts, count = tuple(batch), len(batch)
        for last in self._count_targets():
            if last < count and self.takes.fits(count - last):
                return self._split(parts, last)
        if isinstance(batch, list) and self.takes.fits(1) and self.needs < 2:
            self.notes.append(f"the batch, {_say(batch)}, is passed whole")
            return ((batch,),)
        if not holds_numbers(parts[-1]) and not isinstance(parts[-1], (int, float)):
            self.notes.append(f"the last part of the batch, {_say(parts[-1])}, was left out")
            return self.bind(parts[:-1])
        raise self._refuse(batch)

    def _count_targets(self) -> Sequence[int]:
        """How many of the last parts may be targets, the likeliest first."""
        if self.loss is None:
            named = self.takes.places[-1:] and self.takes.places[-1] in TARGETS
            return (0, 1) if named else (1, 0)
        if self.needs < 2:
            return (0,)
        target = self.loss.forward if isinstance(self.loss, nn.Module) else self.loss
        most = self.needs + (MORE if read_signature(target).more else 0)
        return range(self.needs - 1, most)

    def _split(self, parts: tuple[Any, ...], last: int) -> Any:
        """The first parts for the forward, the last ones for the loss; said, with what each is."""
        inputs, targets = parts[: len(parts) - last], parts[len(parts) - last :]
        names = ", ".join(self.takes.places[: len(inputs)])
        if self.takes is ANYTHING or self.takes.more:
            names = "its arguments"
        if not targets:
            self.notes.append(f"all {len(parts)} parts of the batch go to the forward, as {names}")
            return (inputs,)
        these = "the last part is the target" if last == 1 else f"the last {last} parts are targets"
        first = "the first part goes" if len(inputs) == 1 else f"the first {len(inputs)} parts go"
        self.notes.append(
            f"of the {len(parts)} parts of the batch, {first} to the forward as {names}; {these}"
        )
        return (_shorten(inputs), targets[0] if last == 1 else Targets(targets))

    def _refuse(self, batch: Any) -> CheckError:
        needs = self.needs
        loss = "" if not needs else f", the loss {needs} argument{'s' if needs > 1 else ''}"
        return CheckError(
            f"the batch is {describe_value(batch)}, but the model's forward takes {self.takes.text}{loss}: "
            "they do not fit together; give an (x, y) pair, with x a tuple of arguments or a dict of "
            f"keywords, or {STEP}"
        )


def _shorten(given: Any) -> Any:
    """A single tensor in place of a tuple of one."""
    return (
        given[0] if isinstance(given, tuple) and len(given) == 1 and isinstance(given[0], Tensor) else given
    )


def _find(record: Any, name: str) -> Any:
    """An attribute that an object computes, as a graph of several kinds does; None if there is none."""
    if isinstance(record, (Mapping, tuple)):
        return None
    try:
        value = getattr(record, name, None)
    except Exception:  # somebody's own property
        return None
    return value if holds_numbers(value) or isinstance(value, (int, float)) else None


def _say(value: Any) -> str:
    return describe_value(value)
