"""One forward, watched: which operation ran in which module, what it made, and which weights it used.

Notable:
- A torch function mode sees every operation, in-place or functional, whoever calls it; module hooks only say
  whose turn it is. Compositions in `torch.nn.functional` are seen through: their inner operations are
  recorded.
- Sequence numbers tie the nodes of the autograd graph to operations and modules: a node belongs to whoever
  was running when its number was given out.
- Dropout does not drop while we look.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.core.facts import GraphCut, NodeFacts
from unvanish.probes import operations as families
from unvanish.probes.calls import floats, tensors_in
from unvanish.probes.handles import Handles
from unvanish.probes.measures import activation_stats, weight_stats
from unvanish.probes.together import Together

Node = torch.autograd.graph.Node
Modules = Sequence[tuple[str, nn.Module]]  # with their paths
next_number: Callable[[], int] = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]
COMPOSITIONS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@dataclass
class Turn:
    """One call of one module: its path, which call of it, its parent, and the nodes of its output."""

    path: str
    call: int
    module: nn.Module
    parent: Turn | None
    start: int
    outputs: tuple[tuple[Node, int], ...] = ()
    inputs: Any = None
    result: Any = None
    version: int = 0  # of the result's first tensor, when the call ended


@dataclass
class Operation:
    """One operation: its kind, whose turn it was, its result's nodes, and what was measured."""

    kind: str
    turn: Turn
    order: int
    start: int
    nodes: tuple[Node, ...] = ()
    parameters: tuple[str, ...] = ()
    facts: NodeFacts = field(default_factory=NodeFacts)
    handles: Handles = field(default_factory=Handles)
    stats: dict[str, float] = field(default_factory=dict)
    family: str = field(init=False)  # that rules know it by

    def __post_init__(self) -> None:
        self.family = families.family(self.kind)


class Forward(TorchFunctionMode):
    """The record of one forward; enter `watching` around the model's call."""

    def __init__(
        self,
        model: nn.Module,
        batch: int | None,
        parameters: Mapping[str, Tensor] | None = None,
        norms: Mapping[str, float] | None = None,
        modules: Modules | None = None,
    ) -> None:
        super().__init__()
        self.batch = batch
        self.small = Together(batch)
        self.paths: dict[int, str] = {}
        for name, module in model.named_modules() if modules is None else modules:
            self.paths.setdefault(id(module), name)
        known = dict(model.named_parameters()) if parameters is None else parameters
        self.named = {id(p): name for name, p in known.items()}
        self.norms = norms or {}
        self.versions = {name: known[name]._version for name in self.norms}
        self.root = Turn("", 0, model, None, next_number())
        self.turn = self.root
        self.turns: list[Turn] = []
        self.calls: dict[int, int] = {}
        self.operations: list[Operation] = []
        self.changes: list[tuple[int, Turn | Operation]] = [(0, self.root)]
        self.used: dict[str, int] = {}
        self.cuts: list[tuple[GraphCut, Node | None]] = []
        self.check_finite = False
        self.in_loss = False
        self.loss_start = self.loss_order = 1 << 62

    def start_loss(self) -> None:
        """From here on operations belong to the loss."""
        self.in_loss = True
        self.loss_start, self.loss_order = next_number(), len(self.operations)
        self.turn = self.root
        self.changes.append((self.loss_start, self.root))

    @contextmanager
    def watching(self) -> Iterator[Forward]:
        """Record until the block ends."""
        functional = vars(torch.nn.functional)
        before = {name: functional[name] for name in COMPOSITIONS}
        handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        ]
        functional.update(dict.fromkeys(COMPOSITIONS, lambda *args: False))
        try:
            with self:
                yield self
        finally:
            functional.update(before)
            for handle in handles:
                handle.remove()
            self.small.settle()

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        call = self.calls[id(module)] = self.calls.get(id(module), -1) + 1
        self.turn = Turn(path, call, module, self.turn, next_number())
        self.turns.append(self.turn)
        self.changes.append((self.turn.start, self.turn))
        if isinstance(module, nn.RNNBase):
            self.turn.inputs = args

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) not in self.paths:
            return
        turn: Turn | None = self.turn
        while turn is not None and turn.module is not module:  # what raised and was caught inside
            turn = turn.parent
        if turn is None or turn.parent is None:
            return
        with torch._C.DisableTorchFunction():
            made = (output,) if type(output) is Tensor else tensors_in(output)
            ends = [(t.grad_fn, t.output_nr) for t in made]
        turn.outputs = tuple([(node, number) for node, number in ends if node is not None])
        if isinstance(module, nn.RNNBase):
            turn.result, turn.version = output, next(iter(tensors_in(output)))._version
            for name, _ in module.named_parameters(recurse=False):
                self._use(f"{turn.path}.{name}" if turn.path else name)
        self.turn = turn.parent
        self.changes.append((next_number(), self.turn))

    def _use(self, name: str) -> None:
        self.used[name] = len(self.operations)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args, kwargs)
        kind = families.plain_name(name)
        if kind == "hardtanh" and (args[1:2] == (0.0,) or kwargs.get("min_val") == 0):
            kind = "relu6"
        if kind in families.DROPOUTS:
            return _kept(name, args, kwargs)
        args, kwargs = _steady(kind, args, kwargs)
        start = next_number()
        result = func(*args, **kwargs)
        self._record(kind, start, args, kwargs, result)
        return result

    def _attribute(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and getattr(func.__self__, "__name__", "") == "data":
            self._see(args, kwargs)
            self._cut("data", args)
        return result

    def _record(self, kind: str, start: int, args: Any, kwargs: Any, result: Any) -> Operation | None:
        used = self._see(args, kwargs)
        how = families.GRAPH_CUTS.get(kind) or families.INTEGERS.get(kind)
        if how or kind in families.COMPARISONS:
            self._cut(how or "comparison", args)
        made = floats((result,))
        nodes = tuple([node for t in made if (node := t.grad_fn) is not None])
        if not nodes:
            if made and not torch.is_grad_enabled():
                self._cut("no_grad", args, used)
            return None
        newest = nodes[0]._sequence_nr() if len(nodes) == 1 else max([n._sequence_nr() for n in nodes])
        if newest < start:
            return None
        operation = Operation(kind, self.turn, len(self.operations), start, nodes, used)
        self.operations.append(operation)
        self.changes += [(start, operation), (next_number(), self.turn)]
        self._measure(operation, made[0], args, kwargs)
        return operation

    def _see(self, args: Any, kwargs: Any) -> tuple[str, ...]:
        """The names of the model's parameters among the arguments."""
        found: list[str] = []
        named = self.named
        for value in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(value, (tuple, list)):
                found += [name for item in value if (name := named.get(id(item))) is not None]
            elif (name := named.get(id(value))) is not None:
                found.append(name)
        for name in found:
            self._use(name)
        return tuple(found)

    def _cut(self, how: str, args: Any, used: tuple[str, ...] = ()) -> None:
        source = next((t for t in tensors_in(args, 2) if t.requires_grad), None)
        if source is not None or used:
            node = None if source is None or torch.is_grad_enabled() is False else source.grad_fn
            self.cuts.append(
                (
                    {
                        "path": "the loss" if self.in_loss else self.turn.path,
                        "call": self.turn.call,
                        "how": how,
                        "order": len(self.operations),
                    },
                    node,
                )
            )

    def _measure(self, operation: Operation, result: Tensor, args: Any, kwargs: Any) -> None:
        facts, kind = operation.facts, operation.kind
        facts["shape"], facts["dtype"] = tuple(result.shape), families.dtype(result.dtype)
        if self.check_finite and not bool(torch.isfinite(result).all()):
            inputs = [t for t in tensors_in(args, 2) if t.is_floating_point()]
            operation.handles["made_nonfinite"] = all(bool(torch.isfinite(t).all()) for t in inputs)
            facts["nonfinite_kind"] = "NaN" if bool(torch.isnan(result).any()) else "infinity"
            operation.stats["forward_nonfinite"] = float((~torch.isfinite(result)).double().mean())
        if kind in families.LOSSES:
            _read_loss(operation, args, kwargs)
        if self.in_loss:
            return
        if kind in families.LAYERS:
            _read_weight(operation, args, self.named, self._weight_stats)
        if kind == "batch_norm":
            facts["batch_statistics"] = bool(args[5] if len(args) > 5 else kwargs.get("training", True))
        if kind == "instance_norm":
            facts["batch_statistics"] = False
        if kind in ("scaled_dot_product_attention", "softmax"):
            self._read_attention(operation, args, kwargs, result)
        if kind in families.PRODUCTS:
            factors = [t for t in tensors_in(args, 2) if t.ndim > 1]
            operation.handles["factors"] = tuple((t.grad_fn, t.output_nr) for t in factors)
        self._read_sizes(operation, result)

    def _weight_stats(self, weight: Tensor, outputs: int) -> dict[str, float]:
        return weight_stats(weight, outputs, self._norm_of(weight))

    def _norm_of(self, tensor: Tensor) -> float | None:
        """The norm of a parameter that was not written to since it was measured."""
        name = self.named.get(id(tensor), "")
        same = name in self.norms and self.versions[name] == tensor._version
        return self.norms[name] if same else None

    def _read_attention(self, operation: Operation, args: Any, kwargs: Any, result: Tensor) -> None:
        _read_attention(operation, args, kwargs, result)

    def entering(self, x: Tensor) -> dict[str, float]:
        """The statistics of what the model is given; of a small tensor, once the forward has ended."""
        stats: dict[str, float] = {}
        if x.is_floating_point() and not x.is_meta and not self.small.take(x, stats):
            stats.update(activation_stats(x, self.batch))
        return stats

    def _read_sizes(self, operation: Operation, result: Tensor) -> None:
        family = operation.family
        if family == "other" and not _small(result):
            return
        tokens = result.ndim == 3 and family in ("norm", "add", "layer")
        if tokens or not self.small.take(result, operation.stats):
            operation.stats.update(activation_stats(result, self.batch, tokens=tokens))

    def owner(self, number: int) -> Turn | Operation:
        """Who was running when a sequence number was given out."""
        if len(self._numbers) != len(self.changes):
            self._numbers = [n for n, _ in self.changes]
        return self.changes[bisect_right(self._numbers, number) - 1][1]

    @cached_property
    def first_broken(self) -> Operation | None:
        """The first operation that made a NaN or an infinity of finite numbers."""
        return next((o for o in self.operations if o.handles.get("made_nonfinite")), None)

    _numbers: Sequence[int] = ()


def _small(result: Tensor) -> bool:
    return result.numel() <= 4096


def _kept(name: str, args: Any, kwargs: Any) -> Any:
    """What dropout returns when nothing is dropped."""
    x = args[0] if args else kwargs["input"]
    return (x, torch.ones_like(x, dtype=torch.bool)) if name == "native_dropout" else x


def _steady(kind: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments with dropout probabilities of attention and recurrent layers set to 0."""
    if kind == "scaled_dot_product_attention":
        if len(args) > 4:
            args = (*args[:4], 0.0, *args[5:])
        elif "dropout_p" in kwargs:
            kwargs = {**kwargs, "dropout_p": 0.0}
    elif kind in families.FUSED:
        args = tuple(0.0 if isinstance(a, float) else a for a in args)
    return args, kwargs


def _read_weight(
    operation: Operation,
    args: Any,
    named: Mapping[int, str],
    stats: Callable[[Tensor, int], dict[str, float]],
) -> None:
    """The weights' part of a layer: from the factor that is, or is made from, a parameter."""
    kind, facts, groups = operation.kind, operation.facts, 1
    place = 2 if kind == "addmm" else 1
    weight = args[place] if len(args) > place and isinstance(args[place], Tensor) else None
    by_parameter = kind not in ("matmul", "mm", "einsum", "addmm") or (
        weight is not None and isinstance(weight, nn.Parameter)
    )
    if weight is None or not by_parameter or weight.ndim < 2:
        if kind in ("matmul", "mm", "einsum", "addmm"):
            operation.family = "layer" if operation.parameters else "other"
        return
    if kind in families.TRANSPOSED:
        groups = next((a for a in args[6:7] if isinstance(a, int)), 1)
        fan_in = weight.shape[0]
    else:
        fan_in = weight.shape[-2] if kind in families.COLUMNS else math.prod(weight.shape[1:])
    outputs = families.outputs(kind, weight.shape, groups)
    fan_out = weight.shape[-1] if kind in families.GROUPED else outputs  # of one expert
    name = named.get(id(weight)) or _parametrized(operation.turn)
    facts["fan_out"], facts["fan_in"], facts["weight"] = int(fan_out), int(fan_in), name
    operation.handles["weight_tensor"] = weight.detach()
    facts["frozen"] = not weight.requires_grad
    operation.stats.update(stats(weight, int(outputs)))


def _parametrized(turn: Turn) -> str | None:
    """The name of a weight that its module computes anew at each call (`torch.nn.utils.parametrize`)."""
    return f"{turn.path}.weight".lstrip(".") if parametrized(turn.module) else None


def parametrized(module: nn.Module, name: str = "weight") -> bool:
    """Whether a module computes a tensor of this name from others."""
    return name in module._modules.get("parametrizations", ())  # type: ignore[operator]


def _read_attention(operation: Operation, args: Any, kwargs: Any, result: Tensor) -> None:
    from unvanish.probes.entropy import by_softmax, ends, fused

    if operation.kind == "softmax" and (result.ndim < 3 or result.shape[-1] < 2):
        operation.family = "other"
        return
    written_out = operation.kind == "softmax"
    facts, stats = by_softmax(result) if written_out else fused(args, kwargs)
    operation.facts.update(facts)
    operation.stats.update(stats)
    if written_out:
        operation.handles["scores"] = (args[0] if args else kwargs["input"]).grad_fn
    elif found := ends(args, kwargs):
        operation.handles["ends"] = found


def _read_loss(operation: Operation, args: Any, kwargs: Any) -> None:
    """What the loss function reads, and how wrong it is."""
    operation.family = "other"
    x = args[0] if args else kwargs["input"]
    y = args[1] if len(args) > 1 else kwargs.get("target")
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.numel():
        from unvanish.probes.residual import reading

        operation.handles["reads"] = x.grad_fn
        operation.handles["reading"] = reading(families.LOSSES[operation.kind], x.detach(), y.detach())
