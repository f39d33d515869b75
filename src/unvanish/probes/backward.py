"""One exact backward that reads the norm of the gradient at any node.

Notable:
- `torch.autograd.grad` leaves every `.grad` alone; pre-hooks on graph nodes see the whole gradient there.
- A gradient that leaves the comfortable range of its dtype at a cut is multiplied by a power of two, and the
  exponent is kept for the segment below: 1e-400 is still a number, and nothing is rounded.
- Edges that lead out of a segment to shared nodes scale back.
- In a small model the gradients are kept and read together: hooks cost more than its own backward. If one of
  them has to be multiplied, the backward runs again with hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from unvanish.core.omissions import Omissions
from unvanish.probes.graph import Graph, Node
from unvanish.probes.measures import dense, log_norm, log_of, norms, read_presence

LN2 = math.log(2.0)
MIDDLING = 20.0  # |ln norm| that is comfortable in every dtype except float16, for any number of elements
LIGHT = 1 << 20  # elements of gradients that are kept, at most
COMFORT = {torch.float16: 4, torch.bfloat16: 60, torch.float32: 60, torch.float64: 500}

Hang = Callable[[Callable[..., Any], Callable[..., Any]], Any]


@dataclass
class GradientFlow:
    """What a backward measured, by node and by parameter."""

    log: dict[int, float] = field(default_factory=dict)  # ln ||gradient|| arriving at a node
    zero: dict[int, float] = field(default_factory=dict)
    nonfinite: dict[int, float] = field(default_factory=dict)
    parts: dict[int, tuple[float, ...]] = field(default_factory=dict)  # per output of a node
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    places: dict[str, int | None] = field(default_factory=dict)  # the leaves' nodes; None: not reached
    exponents: dict[str, int] = field(default_factory=dict)  # true gradient = gradient * 2**-exponent
    logs: dict[str, float] = field(default_factory=dict)  # ln ||gradient|| of a leaf; NaN or inf: not finite
    held: dict[Any, tuple[Tensor, int]] = field(default_factory=dict)  # gradients of held outputs
    killed: list[tuple[int, int]] = field(default_factory=list)  # (node, below): gradient arrived, none left
    sent: set[int] = field(default_factory=set)  # nodes to which numbers other than zero were sent
    silenced: list[int] = field(default_factory=list)  # of them, those at which only zeros arrived: by a hook
    broken: list[int] = field(default_factory=list)  # nodes that made a NaN or infinity of finite gradients


class Backward:
    """A backward over a graph with given cuts; `run` returns the GradientFlow.

    `hang`: hangs a look up, by what registers it; the handle.
    """

    def __init__(
        self,
        graph: Graph,
        cuts: Sequence[int],
        watched: Iterable[int],
        held: Mapping[Any, tuple[Node, int]],
        omissions: Omissions | None = None,
        hang: Hang | None = None,
    ) -> None:
        self.graph, self.cuts = graph, cuts
        self._hang = hang
        self.omissions = Omissions() if omissions is None else omissions
        self.segment = graph.segments(cuts)
        self.base = 0
        self.whole = False
        self.exponent = [0] * (len(cuts) + 1)  # the last one is segment -1, never scaled
        self.watched, self.held = set(watched), held
        self.number = {c: k for k, c in enumerate(cuts)}
        self.flow = GradientFlow()

    def run(
        self,
        loss: Tensor,
        leaves: Mapping[str, Tensor],
        *,
        scale: int = 0,
        inspect: bool = False,
        whole: bool = False,
    ) -> GradientFlow:
        """Gradients of the leaves and norms at the watched nodes; the graph is kept.

        `scale`: log2 of the loss scale to run at; every number is divided by it. `inspect`: find the nodes at
        which gradients end or become non-finite, which is slower. `whole`: run the backward as a training
        does, once.
        """
        self.base, self.whole = scale, whole
        self.exponent = [scale] * len(self.cuts) + [scale]
        wanted = list(leaves.values())
        found = None if scale or inspect or whole else self._run_at_once(loss, wanted)
        if found is None:
            found = self._run_with_hooks(loss, wanted, inspect)
        return self.conclude(leaves, found)

    def conclude(self, leaves: Mapping[str, Tensor], found: Sequence[Tensor | None]) -> GradientFlow:
        """The flow, with the gradients of the leaves that a backward has made."""
        self.flow.gradients = dict(zip(leaves, found, strict=True))
        self.flow.places = {name: self.graph.place(leaf) for name, leaf in leaves.items()}
        self.flow.exponents = {
            name: self.base if place is None else self._arriving(place)
            for name, place in self.flow.places.items()
        }
        for name, place in self.flow.places.items():
            if place is not None and self.flow.gradients[name] is None:  # a backward on the way returned None
                self.flow.logs[name] = -math.inf
        self._read_leaves()
        return self.flow

    def _read_leaves(self) -> None:
        """The norms of the leaves' gradients."""
        known = {name: g for name, g in self.flow.gradients.items() if g is not None}
        read: list[float] = self.omissions.attempt(
            "the gradients", "", lambda: norms([*known.values()]), list
        )
        for name, norm in zip(known, read, strict=False):
            self.flow.logs[name] = log_of(norm) - self.flow.exponents[name] * LN2

    def _run_with_hooks(self, loss: Tensor, leaves: list[Tensor], inspect: bool) -> Sequence[Tensor | None]:
        """The gradients of the leaves; those of the watched nodes are read as they pass."""
        handles = [*self._holds(), *self._watches(), *self._crossings()]
        if inspect:
            handles += self._inspections()
        try:  # a cotangent of its own would make torch load its compiler
            root = loss * 2.0**self.base if self.base else loss
            if self.whole:
                return pull(root, leaves, keep_graph=True)
            return torch.autograd.grad(root, leaves, retain_graph=True, allow_unused=True) if leaves else ()
        finally:
            for handle in handles:
                handle.remove()

    def listen(self, scale: int) -> list[Any]:
        """Hooks that read a backward which somebody else runs, and inspect it; nothing is rescaled.

        Without cuts. `scale`: log2 of its loss scale.
        """
        self.base, self.exponent = scale, [scale]
        return [*self._holds(), *self._watches(), *self._inspections()]

    def _inspections(self) -> list[Any]:
        nodes: Iterable[tuple[int, Any]] = enumerate(self.graph.nodes)
        return [self._hang_up(n.register_hook, self._inspection(i)) for i, n in nodes if n.next_functions]

    def _run_at_once(self, loss: Tensor, leaves: list[Tensor]) -> Sequence[Tensor | None] | None:
        """The same, of a small model, at once; None if a gradient had to be multiplied, or is not dense."""
        ends: list[tuple[int, int]] = []  # (node, which of its outputs)
        size = 0
        for i in sorted(self.watched | set(self.cuts)):
            node: Any = self.graph.nodes[i]
            for k, end in enumerate(node._input_metadata):
                if end.is_nested_tensor or end.dtype is torch.float16:
                    return None
                size += math.prod(end.shape)
                ends.append((i, k))
        if not ends or size > LIGHT:
            return None
        edges = [*((self.graph.nodes[i], k) for i, k in ends), *self.held.values()]
        wanted: list[Any] = [*leaves, *(GradientEdge(node, k) for node, k in edges)]
        found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        first, last = len(leaves), len(leaves) + len(ends)
        kept, held = found[first:last], found[last:]
        some = [g for g in kept if g is not None]
        if any(g.layout is not torch.strided for g in some):
            return None
        read = iter(norms(some))
        parts: dict[int, tuple[float, ...]] = {}
        for (i, _), g in zip(ends, kept, strict=True):
            parts[i] = (*parts.get(i, ()), -math.inf if g is None else log_of(next(read)))
        log = {i: _root_sum(own) for i, own in parts.items()}
        if not all(map(math.isfinite, log.values())) or any(abs(log[c]) >= MIDDLING for c in self.cuts):
            return None
        self.flow.log, self.flow.parts = log, parts
        self.flow.held = {name: (g, 0) for name, g in zip(self.held, held, strict=True) if g is not None}
        return found[:first]

    def _arriving(self, i: int) -> int:
        """The exponent of the gradient that arrives at a node: at a cut, that of the segment above."""
        k = self.number.get(i)
        return self.exponent[self.segment[i]] if k is None else self.exponent[k - 1] if k else self.base

    def _holds(self) -> list[Any]:
        """Hooks that keep gradients; registered first, since the others may rescale them."""

        def hold(name: Any, node: Node, number: int) -> Any:
            place = self.graph.index.get(node)

            def keep(gradients: tuple[Tensor | None, ...]) -> None:
                gradient = gradients[number]
                if gradient is not None:
                    self.flow.held[name] = (gradient, self.base if place is None else self._arriving(place))

            return self._hang_up(node.register_prehook, keep)

        return [hold(name, node, number) for name, (node, number) in self.held.items()]

    def _watches(self) -> list[Any]:
        wanted = sorted(self.watched | set(self.cuts))
        return [self._hang_up(self.graph.nodes[i].register_prehook, self._watch(i)) for i in wanted]

    def _hang_up(self, register: Callable[..., Any], look: Callable[..., Any]) -> Any:
        return (self._hook if self._hang is None else self._hang)(register, look)

    def _hook(self, register: Callable[..., Any], look: Callable[..., Any]) -> Any:
        """Register a look at a node; what it cannot read is not measured, and the backward goes on."""

        def see(*gradients: Any) -> Any:
            try:
                return look(*gradients)
            except Exception as error:
                self.omissions.note("the gradient at a node", "", error)
                return None

        return register(see)

    def _watch(self, i: int) -> Callable[[Any], Any]:
        cut, log, parts, exponents = self.number.get(i), self.flow.log, self.flow.parts, self.exponent
        above = self.segment[i] if cut is None else cut - 1  # -1: never scaled

        def look(gradients: tuple[Tensor | None, ...]) -> Any:
            arriving = exponents[above]
            logs = [-math.inf if g is None else log_norm(g) for g in gradients]
            total = _root_sum(logs)
            log[i] = total - arriving * LN2
            parts[i] = (log[i],) if len(logs) == 1 else tuple([part - arriving * LN2 for part in logs])
            if not math.isfinite(total):
                self._odd(i, gradients)
            return None if cut is None else self._rescale(cut, total, arriving, gradients)

        return look

    def _odd(self, i: int, gradients: tuple[Tensor | None, ...]) -> None:
        some = [dense(g) for g in gradients if g is not None]
        count = sum(g.numel() for g in some) or 1
        self.flow.zero[i] = sum(int((g == 0).sum()) for g in some) / count
        bad = sum(int((~torch.isfinite(g)).sum()) for g in some) / count
        self.flow.nonfinite[i] = bad
        if bad:
            self.flow.log[i] = math.nan

    def _rescale(self, cut: int, total: float, arriving: int, gradients: tuple[Tensor | None, ...]) -> Any:
        self.exponent[cut] = arriving
        half = any([g is not None and g.dtype is torch.float16 for g in gradients])
        middling = abs(total) < MIDDLING and not half
        if middling or not math.isfinite(total):
            return None
        some = [g for g in gradients if g is not None and g.numel()]
        comfort = min([COMFORT.get(g.dtype, 60) for g in some])
        size = 0.5 * math.log(sum([g.numel() for g in some]))
        if total < comfort * LN2 and total - size > -comfort * LN2:  # so is the largest element
            return None
        peak = max(float(g.abs().max()) for g in some)
        shift = 0 if peak == 0 or abs(math.log2(peak)) <= comfort else -round(math.log2(peak))
        if not shift:
            return None
        self.exponent[cut] = arriving + shift
        return tuple(None if g is None else _times(g, shift) for g in gradients)

    def _crossings(self) -> list[Any]:
        """Hooks on the nodes with edges from a segment to nodes that belong to none."""
        handles: list[Any] = []
        if -1 not in self.segment:
            return handles
        for i, below in enumerate(self.graph.below):
            own = self.segment[i]
            if own >= 0 and any(self.segment[j] == -1 for j in below):
                node: Any = self.graph.nodes[i]
                handles.append(self._hang_up(node.register_hook, self._crossing(i, own)))
        return handles

    def _crossing(self, i: int, own: int) -> Callable[[Any, Any], Any]:
        shared = [
            b is not None and self.segment[self.graph.index[b]] == -1
            for b, _ in self.graph.nodes[i].next_functions
        ]

        def back(inputs: tuple[Tensor | None, ...], outputs: Any) -> Any:
            shift = self.base - self.exponent[own]
            if not shift:
                return None
            return tuple(
                _times(g, shift) if g is not None and s else g for g, s in zip(inputs, shared, strict=True)
            )

        return back

    def _inspection(self, i: int) -> Callable[[Any, Any], None]:
        places = [
            None if below is None else self.graph.index[below]
            for below, _ in self.graph.nodes[i].next_functions
        ]

        def look(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
            arrived = [read_presence(dense(g)) for g in outputs if g is not None]
            if not any(there for there, _ in arrived):
                if i in self.flow.sent and arrived:
                    self.flow.silenced.append(i)
                return
            pairs = [(g, j) for g, j in zip(inputs, places, strict=True) if j is not None]
            leaving = [((False, True) if g is None else read_presence(dense(g)), j) for g, j in pairs]
            self.flow.killed += [(i, j) for (there, _), j in leaving if not there]
            self.flow.sent.update(j for (there, _), j in leaving if there)
            if not all(whole for (_, whole), _ in leaving) and all(whole for _, whole in arrived):
                self.flow.broken.append(i)

        return look


def pull(loss: Tensor, leaves: Sequence[Tensor], keep_graph: bool = False) -> list[Tensor | None]:
    """The gradients of the leaves by a backward as a training runs it; every `.grad` of theirs is put back.

    Reentrant checkpoints, and hooks that step an optimizer, work in such a backward only.
    """
    found: list[Tensor | None] = [None] * len(leaves)

    def keep(i: int) -> Callable[[Any], None]:
        def add(gradients: tuple[Tensor | None, ...]) -> None:
            (gradient,), before = gradients, found[i]
            if gradient is not None:
                found[i] = gradient.detach() if before is None else before + gradient.detach()

        return add

    ends = [(i, get_gradient_edge(leaf).node) for i, leaf in enumerate(leaves) if leaf.requires_grad]
    before = [leaf.grad for leaf in leaves]
    hooks = [node.register_prehook(keep(i)) for i, node in ends]  # after those of the tensor's own
    try:
        for leaf in leaves:
            leaf.grad = None
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]
        for i, leaf in enumerate(leaves):  # what shards its parameters fills in their gradients by itself
            found[i] = leaf.grad if found[i] is None else found[i]
    finally:
        for hook in hooks:
            hook.remove()
        for leaf, gradient in zip(leaves, before, strict=True):
            leaf.grad = gradient
    return found


def _times(gradient: Tensor, exponent: int) -> Tensor:
    """Gradient * 2**exponent, in steps a dtype can hold."""
    while exponent:
        step = (
            max(-14, min(14, exponent)) if gradient.dtype == torch.float16 else max(-120, min(120, exponent))
        )
        gradient = gradient * 2.0**step
        exponent -= step
    return gradient


def _root_sum(logs: Sequence[float]) -> float:
    """Ln sqrt(sum exp(2 logs))."""
    if len(logs) == 1:
        return logs[0]
    top = max(logs, default=-math.inf)
    if not math.isfinite(top):
        return math.nan if any(math.isnan(x) for x in logs) else top
    return top + 0.5 * math.log(sum(math.exp(2 * (x - top)) for x in logs))
