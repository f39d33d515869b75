"""The calls that a loss makes: where the output meets the targets, in which shapes, and what it adds up.

Notable:
- A tensor without gradient that is made of the batch's targets alone counts as a target; everything that
  requires a gradient depends on the output or on parameters.
- A table of all samples against all samples is a slip if one side was padded by the rules of broadcasting
  alone. If the loss itself inserted the axis, it is meant: pairwise losses, kernels, distances.
- Where both sides have a gradient, or neither, the table is a slip only if nothing of its own size meets it
  before all of it is summed up: a distance |a|^2 + |b|^2 - 2 a b begins in the same way, and goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from unvanish.core.facts import Shape
from unvanish.core.loss_facts import BroadcastFacts, BroadcastKind
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.handles import Node

MOST = 512  # calls that are kept: a loss that makes more is a network of its own
ELEMENTWISE = {"sub", "add", "mul", "div", "pow", "where", "maximum", "minimum", "xlogy", "logaddexp"}
WHOLE = {"broadcast_tensors", "poisson_nll_loss", "kl_div", "hinge_embedding_loss"}  # torch's own losses
OTHERS = {
    "ctc_loss",
    "poisson_nll_loss",
    "hinge_embedding_loss",
    "cosine_embedding_loss",
    "margin_ranking_loss",
}
LOGARITHMS = {"log", "log1p", "log_sigmoid", "log_softmax", "softplus"}
STEPS = {"sub", "gather", "cosine_similarity", "pow", "div", "relu", "clamp", "clamp_min", "exp", "sigmoid"}
NAMED = {*operations.LOSSES, *OTHERS, *LOGARITHMS, *STEPS}  # whose line of code is kept
REDUCING = {"mean", "sum", "nanmean", "nansum"}
RESHAPING = {"unsqueeze", "getitem", "view", "reshape", "expand", "repeat", "expand_as", "view_as"}
LIKE = {"expand_as", "view_as", "reshape_as", "type_as", "to"}  # of a second tensor the shape or type alone
TORCH, OWN = str(Path(torch.__file__).parent), str(Path(operations.__file__).parents[1])


class LossCalls:
    """What the loss of one forward did; `batch`: the number of samples."""

    def __init__(self, batch: int | None) -> None:
        self.batch = batch
        self.targets: dict[int, Tensor] = {}
        self.originals: tuple[Tensor, ...] = ()  # of them, what the batch holds
        self.mixed: dict[int, Tensor] = {}  # made of answers and of the output
        self.numbers: dict[int, Tensor] = {}  # made of these, without a gradient, as an advantage is
        self.idle: dict[int, tuple[Tensor, str, str]] = {}  # losses of what has no gradient: kind, line
        self.shaped: dict[int, Tensor] = {}  # an axis of theirs was inserted within the loss
        self.made: list[tuple[OperationCall, Operation]] = []  # calls whose result has a gradient
        self.lines: dict[int, str] = {}  # of code, of losses and logarithms, by the operation's order
        self.broadcasts: list[tuple[BroadcastFacts, Node]] = []
        self.tables: dict[int, tuple[Tensor, BroadcastFacts]] = {}  # of samples by samples, not yet summed up

    def start(self, targets: tuple[Tensor, ...]) -> None:
        """These tensors of the batch are the answers."""
        self.originals = targets
        self.add_targets(targets)

    def add_targets(self, targets: Iterable[Tensor]) -> None:
        """These tensors are answers, or are made of them."""
        self.targets.update({id(t): t for t in targets})

    def is_target(self, value: object) -> bool:
        """Whether a tensor is, or is made of, the batch's targets."""
        return id(value) in self.targets

    def is_mixed(self, value: object) -> bool:
        """Whether answers went into a tensor, alone or with the output."""
        return any(id(value) in known for known in (self.targets, self.mixed, self.numbers))

    def see(self, call: OperationCall, operation: Operation | None) -> None:
        """Note one call of the loss; `operation`: None if its result has no gradient."""
        if len(self.made) + len(self.targets) > MOST or not isinstance(call.result, (Tensor, tuple, list)):
            return
        if call.kind == "broadcast_tensors" and len(call.args) == len(call.result):
            pairs = zip(call.args, call.result, strict=True)
            self.add_targets(made for before, made in pairs if id(before) in self.targets)
        elif operation is None:
            self.rest(call)
            given = list(tensors_in(call.args[:1] if call.kind in LIKE else call.given, 2))
            if any([id(t) in self.targets for t in given]) and not any([t.requires_grad for t in given]):
                self.add_targets(tensors_in(call.result, 1))
            elif any([self.is_mixed(t) for t in given]):
                self.numbers |= {id(t): t for t in tensors_in(call.result, 1)}
        else:
            if any([self.is_mixed(t) for t in tensors_in(call.args, 2)]):
                self.mixed |= {id(t): t for t in tensors_in(call.result, 1)}
            self.made.append((call, operation))
            if call.kind in NAMED or (isinstance(call.result, Tensor) and call.result.numel() == 1):
                self.lines[operation.order] = find_line()
        self.compare(call)
        self.follow(call)
        if call.kind in RESHAPING and isinstance(call.result, Tensor) and _gains_an_axis(call, call.result):
            self.shaped[id(call.result)] = call.result

    def rest(self, call: OperationCall) -> None:
        """Note a loss of torch's own that compares what has no gradient, and numbers times it."""
        result = call.result
        if not isinstance(result, Tensor) or result.numel() != 1:
            return
        if call.kind in operations.LOSSES:
            self.idle[id(result)] = result, call.kind, find_line()
        elif call.kind in ("mul", "div", "neg"):
            known = [self.idle[id(t)] for t in call.args if id(t) in self.idle]
            if known:
                self.idle[id(result)] = result, *known[0][1:]

    def find_broadcasts(self, graph: Graph | None) -> list[BroadcastFacts]:
        """The broadcasts that the loss reaches."""
        return [] if graph is None else [facts for facts, node in self.broadcasts if node in graph.index]

    def find_difference(self, graph: Graph | None) -> tuple[Tensor, Tensor] | None:
        """The first output and target of one shape that the loss subtracts from each other by hand."""
        for call, operation in self.made if graph is not None else ():
            if call.kind != "sub" or graph is None or operation.nodes[0] not in graph.index:
                continue
            given = [t for t in call.given if isinstance(t, Tensor)]
            ours = [t for t in given if t.requires_grad]
            answers = [t for t in given if self.is_target(t)]
            if ours and answers and answers[0].is_floating_point():
                output, target = ours[0], answers[0]
                if output.shape == target.shape:
                    return output, target
                if output.ndim == target.ndim and all(
                    m in (1, n) for n, m in zip(output.shape, target.shape, strict=True)
                ):
                    return output, target.expand_as(output)  # as several quantiles of one number
        return None

    def compare(self, call: OperationCall) -> None:
        """Note a call in which the output and something else are broadcast against each other."""
        whole = call.kind in WHOLE
        if not whole and call.kind not in ELEMENTWISE:
            return
        given = [t for t in tensors_in(call.given, 2) if t.numel() > 1]
        ours = [t for t in given if t.requires_grad]
        others = [t for t in given if not t.requires_grad]
        if not ours or not others or ours[0].shape == others[0].shape:
            return
        how = self._judge(ours[0], others[0], whole)
        node = next((t.grad_fn for t in tensors_in(call.result, 1) if t.grad_fn is not None), None)
        if how is not None and node is not None:
            facts: BroadcastFacts = {
                "how": how,
                "kind": call.kind,
                "shapes": (tuple(ours[0].shape), tuple(others[0].shape)),
                "table": _join([tuple(t.shape) for t in given]),
                "source": find_line(),
            }
            self.broadcasts.append((facts, node))

    def follow(self, call: OperationCall) -> None:
        """Note a table that two values of one standing make, where it goes, and that it is summed up."""
        given, result = list(tensors_in(call.given, 2)), call.result
        if not isinstance(result, Tensor):
            return
        known = [self.tables[id(t)][1] for t in given if id(t) in self.tables]
        if known and result.numel() == 1:
            if call.kind in REDUCING and result.grad_fn is not None:
                self.broadcasts.append((known[0], result.grad_fn))
        elif known and all(id(t) in self.tables or t.numel() < result.numel() for t in given):
            if tuple(result.shape) == known[0]["table"]:
                self.tables[id(result)] = result, known[0]
        elif call.kind in ELEMENTWISE and len(given) == 2 and self._is_slip(*given):
            first, second = sorted(given, key=lambda t: (id(t) in self.targets, not t.requires_grad))
            self.tables[id(result)] = (
                result,
                {
                    "how": "samples x samples",
                    "kind": call.kind,
                    "shapes": (tuple(first.shape), tuple(second.shape)),
                    "table": tuple(result.shape),
                    "source": find_line(),
                },
            )

    def _is_slip(self, a: Tensor, b: Tensor) -> bool:
        """Whether two values, both with a gradient or both without, pair all samples by padding alone."""
        if a.ndim == b.ndim or a.requires_grad != b.requires_grad or self._is_by_hand(a, b):
            return False
        grown, growing = find_stretches(tuple(a.shape), tuple(b.shape))
        return self.batch in set(grown.values()) & set(growing.values()) and not _are_same(a, b)

    def _judge(self, ours: Tensor, other: Tensor, whole: bool) -> BroadcastKind | None:
        """The slip, by its name in `BroadcastFacts`; None for what is meant."""
        grown, growing = find_stretches(tuple(ours.shape), tuple(other.shape))
        twice = set(grown.values()) & set(growing.values())
        known = id(other) in self.targets or self.batch in twice
        if twice and known and (whole or not self._is_by_hand(ours, other)):
            return "samples x samples"
        if not whole or twice or id(other) not in self.targets or not other.is_floating_point():
            return None
        if grown and ours.ndim == other.ndim and ours.shape[0] == other.shape[0] > 1:
            return "output repeated"
        return "target repeated" if growing and not grown else None

    def _is_by_hand(self, ours: Tensor, other: Tensor) -> bool:
        """Whether the loss laid both sides out itself."""
        return ours.ndim == other.ndim or id(ours) in self.shaped or id(other) in self.shaped


def find_stretches(a: Shape, b: Shape) -> tuple[dict[int, int], dict[int, int]]:
    """The axes along which each of two shapes is repeated, counted from the end, with their new lengths."""
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    pairs = [(i - rank, m, n) for i, (m, n) in enumerate(zip(left, right, strict=True))]
    return {i: n for i, m, n in pairs if m == 1 < n}, {i: m for i, m, n in pairs if n == 1 < m}


def _are_same(a: Tensor, b: Tensor) -> bool:
    """Whether two values are the same numbers; True too for those that do not tell, as within transforms."""
    try:
        return a.data_ptr() == b.data_ptr()
    except (RuntimeError, NotImplementedError):
        return True


def _join(shapes: Sequence[Shape]) -> Shape:
    """The shape that several make together."""
    rank = max(len(shape) for shape in shapes)
    return tuple(max(sizes) for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True))


def _gains_an_axis(call: OperationCall, result: Tensor) -> bool:
    source = next((t for t in tensors_in(call.args, 1)), None)
    return source is not None and result.ndim > source.ndim


def find_line() -> str:
    """The innermost line of the user's code that is running, as "file.py:12"; "" if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    entered = False
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OWN) and entered:
            return ""
        if not name.startswith((OWN, TORCH, "<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        entered = not name.startswith(OWN)
        frame = frame.f_back
    return ""
