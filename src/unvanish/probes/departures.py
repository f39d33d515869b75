"""Where the forward leaves the autograd graph, and where what left it comes back.

Notable:
- A value without a gradient that was made of one with a gradient carries the number of the cut that took it
  off; what is computed from it carries it too. An operation of the graph that reads such a value is where the
  cut comes back. So a cut that only feeds a log is told from one that the loss depends on.
- Numbers of Python and arrays of NumPy cannot be followed; a tensor that is made of numbers afterwards
  carries every cut that gave some.
- Tensors are held by weak references only: nothing lives longer because it is followed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unvanish.core.facts import GraphCut
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.estimators import find_turned
from unvanish.probes.events import OperationCall
from unvanish.probes.handles import Node
from unvanish.probes.lines import find_line

NOTHING: frozenset[int] = frozenset()
EMPTY = {  # what these return has the shape or the type of their argument, and none of its values
    *("zeros_like", "ones_like", "empty_like", "rand_like", "randn_like", "randint_like", "full_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "requires_grad", "new"),
}
MADE = {"tensor", "as_tensor", "new_tensor", "full", "asarray"}  # of numbers, or of arrays
OFF = ("no_grad", "inference_mode", "checkpoint")  # calls together, until the next operation of the graph
SHARING = ("detach", "data", "numpy")  # what these return holds the memory of what they were asked of
NUMBERS = {"float": "item", "int": "item", "item": "item", "tolist": "tolist", "numpy": "numpy"}


@dataclass
class Departure:
    """One cut: its facts, what the value was made of, and the operations of the graph that read it."""

    facts: GraphCut
    node: Node | None  # of the first tensor with a gradient
    sources: list[Node] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # parameters that it was made of directly
    back: list[Node] = field(default_factory=list)


class Departures:
    """All cuts of one forward, in order."""

    def __init__(self) -> None:
        self.cuts: list[Departure] = []
        self.carried: dict[int, tuple[weakref.ref[Tensor], frozenset[int]]] = {}
        self.born: dict[int, str] = {}  # the line that made a value of nothing that learns, by its storage
        self.aliases: dict[int, tuple[weakref.ref[Tensor], int]] = {}  # by their memory: what was taken off
        self.numbers: frozenset[int] = NOTHING  # cuts that gave numbers or arrays
        self.values: list[tuple[float, int]] = []  # single numbers and the cuts that gave them
        self.turned: list[tuple[str, str]] = []  # estimators with the wrong sign: module and line
        self.off: tuple[str, str, str] | None = None  # where gradients were turned off
        self.named: tuple[str, str, str] | None = None  # what turns gradients off, in which module and line

    def turn(self, on: bool, path: str) -> None:
        """Gradients are turned on or off, in the module that runs."""
        self.off = ("no_grad", path, "") if not on else None

    @contextmanager
    def naming(self, how: str, path: str) -> Iterator[None]:
        """What runs without gradients does so because of this, in the line that is running."""
        before, self.named = self.named, (how, path, find_line(3))
        try:
            yield
        finally:
            self.named = before

    def __iter__(self) -> Iterator[Departure]:
        return iter(self.cuts)

    def carries(self, tensor: Tensor) -> frozenset[int]:
        """The numbers of the cuts that a tensor's value was taken off by."""
        found = self.carried.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else NOTHING

    def come_back(self, given: Iterable[Any], node: Node) -> None:
        """An operation of the graph reads its arguments."""
        if self.carried or self.aliases:
            for number in self._union(tensors_in(tuple(given), 3)):
                self.cuts[number].back.append(node)

    def compare(self, call: OperationCall, path: str) -> None:
        """Note a sum in which a value cancels what was taken off the graph, and leaves its gradient."""
        source = find_turned(call, self._find_source) if self.carried or self.aliases else None
        if source is not None:
            self.turned.append((path, find_line()))

    def _find_source(self, tensor: Tensor) -> set[Node]:
        """The nodes of what a value was detached from."""
        cuts = (self.cuts[number] for number in self.carries(tensor))
        return {c.node for c in cuts if c.facts["how"] in SHARING and c.node is not None}

    def leave(
        self,
        kind: str,
        given: Sequence[Any],
        result: Any,
        used: tuple[str, ...],
        where: tuple[str, int, int],
        grad: bool,
    ) -> None:
        """A call whose results carry no gradient; `where`: path, call, order; `grad`: gradients are on."""
        silent = not isinstance(result, (Tensor, tuple, list)) and kind not in NUMBERS
        if silent or isinstance(result, torch.Size):
            return
        if kind in EMPTY:
            self._bear(result)
            return
        read = [*tensors_in(tuple(given), 3)]
        live = [t for t in read if t.requires_grad]
        own = self._union(read)
        if live or used:
            how = _name(kind, isinstance(result, Tensor), grad)
            if how is not None:
                own |= {self._note(how, where, live, used)}
        if kind in MADE and not any(t.is_floating_point() for t in read):
            own |= self.numbers
        if own:
            self._carry(kind, result, own)
        else:
            self._bear(result)

    def take(
        self, how: str, source: Tensor, result: Any, where: tuple[str, int, int], used: tuple[str, ...] = ()
    ) -> None:
        """`.data` of a tensor, or the indices of the largest values."""
        own = self.carries(source)
        if source.requires_grad:
            own |= {self._note(how, where, [source], used)}
        if own:
            self._carry(how, result, own)

    def _bear(self, result: Any) -> None:
        if isinstance(result, Tensor) and result.is_floating_point() and result.layout is torch.strided:
            self.born[result.data_ptr()] = find_line()

    def _note(
        self, how: str, where: tuple[str, int, int], live: Sequence[Tensor], used: tuple[str, ...]
    ) -> int:
        path, call, order = where
        last = self.cuts[-1] if self.cuts else None
        line = ""
        if how == "no_grad" and (place := self.named or self.off) is not None:
            how, path, line = place
        off = how in OFF
        together = off and last is not None and last.facts["how"] == how
        if last is None or not together or last.facts["order"] != order:
            node = None if off else next((t.grad_fn for t in live), None)
            facts: GraphCut = {
                "path": path,
                "call": call,
                "how": how,
                "order": order,
                "line": line or find_line(),
                "frees": (),
                "behind": 0,
            }
            last = Departure(facts, node)
            self.cuts.append(last)
        last.sources += [t.grad_fn for t in live if t.grad_fn is not None]
        last.names |= {*used}
        number = len(self.cuts) - 1
        if how in SHARING:
            made = [t for t in live if t.grad_fn is not None and t.layout is torch.strided]
            self.aliases |= {t.data_ptr(): (weakref.ref(t), number) for t in made}
        return number

    def _carry(self, kind: str, result: Any, own: frozenset[int]) -> None:
        if isinstance(result, (int, float)) and not isinstance(result, bool):
            self.values += [(float(result), number) for number in own]
        made = [*tensors_in(result, 2)]
        for tensor in made:
            if not tensor.requires_grad:
                before = self.carries(tensor)
                self.carried[id(tensor)] = (weakref.ref(tensor), own | before)
        if not made and kind in NUMBERS:
            self.numbers |= own

    def _union(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        found = NOTHING
        for tensor in tensors:
            own = self.carries(tensor) or (self._find_alias(tensor) if self.aliases else NOTHING)
            found = own if not found else found | own if own else found
        return found

    def _find_alias(self, tensor: Tensor) -> frozenset[int]:
        """The cut of a value whose memory a leaf holds, as `Variable(h.data)` and `from_numpy` make them."""
        if tensor.grad_fn is not None or tensor.layout is not torch.strided or not tensor.numel():
            return NOTHING
        source, number = self.aliases.get(tensor.data_ptr(), (None, 0))
        alive = source() if source is not None else None
        return frozenset({number}) if alive is not None and alive.shape == tensor.shape else NOTHING


def _name(kind: str, tensor: bool, grad: bool) -> str | None:
    """How a call leaves the graph; None for one that asks for nothing but a truth value or a shape."""
    named = operations.GRAPH_CUTS.get(kind) or operations.INTEGERS.get(kind)
    if named:
        return named
    if kind in operations.COMPARISONS:
        return "comparison"
    if not grad:
        return "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
    number = None if tensor else NUMBERS.get(kind)
    return number or ("tensor" if kind in MADE else "integers")


def turns_off(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call sets requires_grad to False."""
    own = name == "requires_grad_" or getattr(func.__self__, "__name__", "") == "requires_grad"
    return own and (args[1] if len(args) > 1 else kwargs.get("requires_grad", True)) is False
