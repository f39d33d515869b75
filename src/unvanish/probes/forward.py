"""One forward, watched: which operation ran in which module, what it made, and which weights it used.

Notable:
- A torch function mode sees every operation, in-place or functional, from any caller; module hooks only say
  which module is running. Compositions in `torch.nn.functional` are seen through: their inner operations are
  recorded.
- Sequence numbers tie the nodes of the autograd graph to operations and modules: a node belongs to what was
  running when its number was given out.
- Dropout drops nothing while the forward is watched.
- What cannot be read of an operation is not measured (`omissions`); the forward goes on. Inside transforms
  of `torch.func` nothing is read: the tensors there stand for others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.core.omissions import Omissions
from unvanish.probes import operations, readings, signatures
from unvanish.probes.altered import ALTERED, alter, undrop
from unvanish.probes.calls import floats, tensors_in
from unvanish.probes.choices import Choice, read_choice
from unvanish.probes.compositions import Unfolded
from unvanish.probes.departures import Departures, turns_off
from unvanish.probes.derivatives import InnerGradients
from unvanish.probes.dropouts import Dropouts
from unvanish.probes.emptiness import measure_padding
from unvanish.probes.events import ModuleCall, Operation, OperationCall
from unvanish.probes.features import read_features
from unvanish.probes.handles import Node
from unvanish.probes.layers import name_modules, name_parameters
from unvanish.probes.lines import find_line
from unvanish.probes.loss_calls import LossCalls
from unvanish.probes.measures import activation_stats, find_shape, weight_stats
from unvanish.probes.mixing import MixingSigns
from unvanish.probes.named import NamedParameters
from unvanish.probes.normalised import read_norm
from unvanish.probes.together import Together

Modules = Sequence[tuple[str, nn.Module]]  # with their paths
next_number: Callable[[], int] = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]
find_transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack  # None outside of all
VALUED = {"data", "T", "mT", "H", "mH", "real", "imag"}  # attributes of a tensor that hold its values
SWITCHES = {"__set__", "requires_grad_", "register_hook", "_set_grad_enabled", "grad"}  # of gradients
SMALL = 1 << 12  # elements: a result is measured though its operation is of no family


class Forward(TorchFunctionMode):
    """The record of one forward; enter `watching` around the model's call."""

    SEES_INSIDE = True  # compositions of torch.nn.functional are unfolded for it

    def __init__(
        self,
        model: nn.Module,
        batch: int | None,
        parameters: Mapping[str, Tensor] | None = None,
        norms: Mapping[str, float] | None = None,
        modules: Modules | None = None,
        omissions: Omissions | None = None,
    ) -> None:
        super().__init__()
        self.batch = batch
        self.omissions = Omissions() if omissions is None else omissions
        self.small = Together(batch, self.omissions)
        self.paths: dict[int, str] = {}
        for name, module in name_modules(model) if modules is None else modules:
            self.paths.setdefault(id(module), name)
        known = name_parameters(model) if parameters is None else parameters
        self.parameters = NamedParameters(known, norms or {})
        self.root = ModuleCall("", 0, model, None, next_number())
        self.running = self.root  # the innermost module call
        self.module_calls: list[ModuleCall] = []
        self.counts: dict[int, int] = {}  # calls of each module so far, less one
        self.operations: list[Operation] = []
        self.changes: list[tuple[int, ModuleCall | Operation]] = [(0, self.root)]  # of what runs
        self.numbers_of_changes: list[int] = []
        self.used: dict[str, int] = {}
        self.departures = Departures()
        self.derivatives = InnerGradients()
        self.sums: list[tuple[OperationCall, Node]] = []  # of single numbers, one of which has no gradient
        self.mixing = MixingSigns(batch)
        self.dropouts = Dropouts()
        self.choices: list[Choice] = []
        self.hooks: dict[Node, str] = {}  # the line that put a hook on a tensor, by the tensor's node
        self.aside: list[Any] = []  # what made a NaN or an infinity off the graph
        self.asked: Collection[int] = ()  # the operations, by order, whose line is wanted
        self.move: Callable[[Operation, Tensor], None] | None = None  # what becomes of a result
        self.alters = self.sizes = True  # dropout is off; activations are measured
        self.check_finite = self.in_loss = False  # all is looked at; the loss runs
        self.has_read = self.gaps = False  # a layer ran; something was not read
        self.loss_calls = LossCalls(batch)
        self.is_grad_on = torch.is_grad_enabled  # in the program
        self.uneven_axis: int | None = None  # of the features that the first one read
        self.loss_start = self.loss_order = 1 << 62

    def start_loss(self) -> None:
        """Operations from here on belong to the loss."""
        self.in_loss = True
        self.parameters.leave_model()
        self.loss_start, self.loss_order = next_number(), len(self.operations)
        self.running = self.root
        self.changes.append((self.loss_start, self.root))

    @contextmanager
    def watching(self) -> Iterator[Forward]:
        """Record until the block ends."""
        handles = [
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(self.leave),
        ]
        try:
            with Unfolded(), self:
                yield self
        finally:
            for handle in handles:
                handle.remove()
            self.small.settle()

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        path = self.paths.get(id(module))
        if path is None:
            return
        if find_transform() is not None:
            args = ()
        count = self.counts[id(module)] = self.counts.get(id(module), -1) + 1
        self.running = ModuleCall(path, count, module, self.running, next_number())
        self.module_calls.append(self.running)
        self.changes.append((self.running.start, self.running))
        if isinstance(module, nn.RNNBase):
            self.running.inputs = args

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module has returned."""
        if id(module) not in self.paths:
            return
        call: ModuleCall | None = self.running
        while call is not None and call.module is not module:  # it raised, and its caller caught it
            call = call.parent
        if call is None or call.parent is None:
            return
        try:
            if find_transform() is None:
                self._keep(call, output)
        except Exception as error:
            self.omissions.note("what a module returned", call.path, error)
        self.running = call.parent
        self.changes.append((next_number(), self.running))

    def _keep(self, call: ModuleCall, output: Any) -> None:
        """Where the output of a call came from; of a recurrent layer also what it is."""
        module = call.module
        with torch._C.DisableTorchFunction():
            made = (output,) if type(output) is Tensor else tensors_in(output)
            ends = [(t.grad_fn, t.output_nr) for t in made]
        call.outputs = tuple([(node, number) for node, number in ends if node is not None])
        if isinstance(module, nn.RNNBase):
            for name, _ in module.named_parameters(recurse=False):
                self._use(f"{call.path}.{name}" if call.path else name)
            call.result, call.version = output, next(iter(tensors_in(output)))._version

    def _use(self, name: str) -> None:
        self.used[name] = len(self.operations)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args, kwargs)
        if name in SWITCHES:
            try:
                self._switch(func, name, args, kwargs)
            except Exception as error:
                self.omissions.note("what switches gradients", self.running.path, error)
        kind = operations.plain_name(name)
        if kind in ALTERED and self.alters:
            try:
                bound = signatures.bind(kind, args, kwargs)
                if not self.in_loss:
                    self.dropouts.see(kind, bound, self.running)
                if kind in operations.DROPOUTS:
                    return undrop(name, bound["input"])
                kind, args, kwargs = alter(kind, args, kwargs)
            except Exception as error:
                self.omissions.note(f"{kind} without dropout", self.running.path, error)
        call = OperationCall(kind, args, kwargs, next_number())
        call.result = result = func(*args, **kwargs)
        try:
            if find_transform() is not None:
                self._pass_transform(call)
            elif types:  # reading must not call the functions of somebody's own tensors
                with torch._C.DisableTorchFunctionSubclass():
                    self._read(call)
            else:
                self._read(call)
        except Exception as error:
            self.gaps = True
            self.omissions.note(f"the operation {kind}", self.running.path, error)
        return result

    def _read(self, call: OperationCall) -> None:
        """Record an operation, and what it is to the loss."""
        operation = self._record(call)
        if self.in_loss:
            self.loss_calls.see(call, operation)
        elif call.kind == "broadcast_tensors":
            self.loss_calls.compare(call)

    def _pass_transform(self, call: OperationCall) -> None:
        """Inside a transform only the use of parameters is noted."""
        self._see(call.given)
        self.gaps = True
        self.omissions.note("operations", self.running.path, "they run inside a transform of torch.func")

    def _attribute(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        name = getattr(func.__self__, "__name__", "")
        if name in VALUED and isinstance(result, Tensor):
            try:
                self._take_value(name, args, result)
            except Exception as error:
                self.omissions.note(f"the use of .{name}", self.running.path, error)
        return result

    def _switch(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        """Gradients are turned on or off, hooked, or taken within the forward."""
        if name in ("__set__", "requires_grad_") and turns_off(func, name, args, kwargs):
            self.parameters.turn_off(args[0])
        elif name == "register_hook" and (node := args[0].grad_fn) is not None:
            self.hooks[node] = find_line()
        elif name == "_set_grad_enabled":
            self.departures.turn(bool(args[0]), self._place()[0])
        elif func is torch.autograd.grad:
            self.derivatives.ask(args, kwargs)

    def _take_value(self, name: str, args: Any, result: Tensor) -> None:
        """An attribute that holds a tensor's values is read."""
        used = self._see(args)
        if self.in_loss and self.loss_calls.is_target(args[0]):
            self.loss_calls.add_targets((result,))
        if name == "data":
            self.departures.take("data", args[0], result, self._place(), used)
        elif result.grad_fn is None:
            self.departures.leave(name, args, result, used, self._place(), self.is_grad_on())

    def _record(self, call: OperationCall) -> Operation | None:
        """The operation of a call; None if it made no node of the autograd graph."""
        kind, start, result, used = call.kind, call.start, call.result, self._see(call.given)
        if kind in operations.CHOICES and not self.in_loss:
            choice = read_choice(call.args[0], call.result, self.running)
            self.choices += [choice] if choice is not None else []
        if kind == "grad":
            self.derivatives.see(call, self._place()[0], self.operations)
        if kind == "setitem":
            self._see_overwritten(call, used)
            return None
        made = floats((result,))
        nodes = tuple([node for t in made if (node := t.grad_fn) is not None])
        if not nodes:
            self.aside += readings.read_aside(call, self.in_loss) if self.check_finite else []
            self.departures.leave(kind, call.given, result, used, self._place(), self.is_grad_on())
            return None
        newest = nodes[0]._sequence_nr() if len(nodes) == 1 else max([n._sequence_nr() for n in nodes])
        if newest < start:
            return None
        operation = Operation(kind, self.running, len(self.operations), start, nodes, used)
        self.operations.append(operation)
        self.departures.come_back(call.given, nodes[0])
        if kind in operations.SUMS:
            self._sum(call, nodes[0], made[0].numel())
        if kind in operations.PICKS and isinstance(result, tuple):
            self.departures.take("indices", call.args[0], result[1:], self._place())
        self.changes += [(start, operation), (next_number(), self.running)]
        self._measure(operation, call, made[0])
        if (move := self.move) is not None:
            for t in made:
                move(operation, t)
        if kind in self.mixing.kinds and not self.in_loss:
            self.mixing.look(operation, call, made[0])
        return operation

    def _sum(self, call: OperationCall, node: Node, size: int) -> None:
        """Terms are added, or put together to be added."""
        if size > operations.FEW:
            return self.departures.compare(call, self.running.path)
        known = self.departures.values or self.departures.numbers
        if known and any(isinstance(a, float) for a in call.args):
            return self.sums.append((call, node))
        if any(not t.requires_grad and self.departures.carries(t) for t in tensors_in(call.args, 2)):
            self.sums.append((call, node))

    def _see_overwritten(self, call: OperationCall, used: tuple[str, ...]) -> None:
        """A part of a tensor is overwritten."""
        whole = call.args[0]
        if isinstance(whole, Tensor) and whole.grad_fn is not None:
            self.departures.come_back(call.args, whole.grad_fn)
        else:
            self.departures.leave(call.kind, call.args, whole, used, self._place(), self.is_grad_on())

    def _see(self, given: Sequence[Any]) -> tuple[str, ...]:
        """The names of the model's parameters among the arguments."""
        found: dict[str, Tensor] = {}
        names = self.parameters.names
        for value in given:
            if isinstance(value, (tuple, list)):
                found |= {name: item for item in value if (name := names.get(id(item))) is not None}
            elif (name := names.get(id(value))) is not None:
                found[name] = value
        for name, tensor in found.items():
            self._use(name)
            if not tensor.requires_grad:
                self.parameters.asleep.add(name)
        return tuple(found)

    def _place(self) -> tuple[str, int, int]:
        """The module that runs, which call of it, and the operation that follows."""
        path = "the loss" if self.in_loss else self.running.path
        return path, self.running.index, len(self.operations)

    def _measure(self, operation: Operation, call: OperationCall, result: Tensor) -> None:
        facts, kind = operation.facts, operation.kind
        facts["shape"] = tuple(result.shape) if not result.is_nested else find_shape(result)
        facts["dtype"] = operations.dtype(result.dtype)
        if self.asked and operation.order in self.asked:
            facts["line"] = find_line()
        if self.check_finite:
            readings.read_finiteness(operation, call, result)
        if kind in operations.LOSSES:
            readings.read_loss(operation, call)
            operation.handles["given"] = self.loss_calls.is_target(call.arguments.get("target"))
        if self.in_loss:
            return
        if kind in operations.LAYERS:
            readings.read_weight(operation, call, self.parameters.name, self._weight_stats)
        if not self.has_read and (operation.family in ("layer", "recurrent") or kind in operations.BY_SAMPLE):
            self.has_read = True
            facts.update(read_features(call))
            self.uneven_axis = facts.get("feature_axis")
        if kind == "mean":
            facts.update(measure_padding(call))
        if operation.family == "norm":
            read_norm(operation, call)
        if kind in operations.ATTENTION and not result.is_nested:
            readings.read_attention(operation, call, result)
        if kind in operations.PRODUCTS:
            factors = [t for t in tensors_in(call.args, 2) if t.ndim > 1]
            operation.handles["factors"] = tuple((t.grad_fn, t.output_nr) for t in factors)
            if kind == "einsum" and isinstance(call.args[0], str):
                operation.handles["equation"] = call.args[0].replace(" ", "")
        self._read_sizes(operation, result)

    def _weight_stats(self, weight: Tensor, outputs: int) -> dict[str, float]:
        return weight_stats(weight, outputs, self.parameters.norm(weight))

    def _read_sizes(self, operation: Operation, result: Tensor) -> None:
        if not self.sizes:
            return
        if result.layout is not torch.strided or result.is_nested:
            operation.stats.update(activation_stats(result, None))
            return
        if (family := operation.family) == "other" and result.numel() > SMALL:
            return
        tokens = result.ndim == 3 and family in ("norm", "add", "layer")
        result = readings.put_samples_first(result, self.running.module) if tokens else result
        if not self.small.take(result, operation.stats, tokens):
            operation.stats.update(activation_stats(result, self.batch, tokens=tokens))

    def entering(self, name: str, x: Tensor) -> dict[str, float]:
        """The statistics of an input; those of a small tensor are filled in when the forward ends."""
        return self.omissions.attempt("the input", name, lambda: self._read_input(x), dict)

    def _read_input(self, x: Tensor) -> dict[str, float]:
        stats: dict[str, float] = {}
        if x.is_floating_point() and not x.is_meta and not self.small.take(x, stats):
            stats.update(activation_stats(x, self.batch))
        return stats

    def owner(self, number: int) -> ModuleCall | Operation:
        """What was running when a sequence number was given out."""
        if len(self.numbers_of_changes) != len(self.changes):
            self.numbers_of_changes = [n for n, _ in self.changes]
        return self.changes[bisect_right(self.numbers_of_changes, number) - 1][1]

    @cached_property
    def first_broken(self) -> Operation | None:
        """The first operation that made a NaN or an infinity from finite numbers, or a NaN of infinities."""
        made = (o for o in self.operations if o.handles.get("made_nonfinite"))
        nan = (o for o in self.operations if o.handles.get("made_nan"))
        return next(made, next(nan, None))
