"""A forward written down as a program of plain data for the theory: `Taped`.

Notable: a tensor is known by the node and the output that made it, or by its id if no node did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unvanish.core.omissions import Omissions
from unvanish.probes import calls, operations
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.forward import Forward, Modules
from unvanish.probes.layers import name_parameters
from unvanish.probes.program.facts import StepSource, describe
from unvanish.probes.program.weights import Weights
from unvanish.theory.program.steps import Program, Step


class Taped(Forward):
    """A forward that also writes its program; `ran`: the model itself, or a copy without numbers."""

    def __init__(
        self,
        model: nn.Module,
        ran: nn.Module,
        call: calls.Call,
        parameters: Mapping[str, Tensor] | None = None,
        norms: Mapping[str, float] | None = None,
        modules: Modules | None = None,
        omissions: Omissions | None = None,
    ) -> None:
        own = name_parameters(ran) if parameters is None else parameters
        super().__init__(ran, call.batch_size, own, norms, modules, omissions)
        real = own if ran is model else name_parameters(model)
        self.weights = Weights(self.parameters, {id(p): real[name] for name, p in own.items()}, model)
        self.steps: list[Step] = []
        self.numbers: dict[tuple[Any, int], int] = {}
        self.held: list[Any] = []
        self.entered: dict[int, tuple[int, ...]] = {}
        self.named_inputs: dict[str, int] = {}
        passed = [*calls.tensors_in(call.args), *calls.tensors_in(call.kwargs)]
        floats = [t for t in passed if t.is_floating_point()]
        for name, tensor in zip(call.inputs, floats, strict=False):
            self.named_inputs[name] = self.number(tensor)
            self.entered[self.named_inputs[name]] = tuple(tensor.shape)

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor: of its node's output, else of the object."""
        node = tensor.grad_fn
        key = (node, tensor.output_nr) if node is not None else (id(tensor), -1)
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.numbers)
            if node is None:
                self.held.append(tensor)  # so that its id stays its own
        return found

    def program(self, output: Any) -> Program:
        """The program so far, of a model that returned `output`."""
        made = {self.number(t): tuple(t.shape) for t in calls.predictions(output) if t.requires_grad}
        return Program(tuple(self.steps), self.entered, made, self.batch or 1)

    def _record(self, call: OperationCall) -> Operation | None:
        operation = super()._record(call)
        if not self.in_loss:
            try:
                self._write(call, operation)
            except Exception as error:
                self.gaps = True
                self.omissions.note(f"what theory knows of {call.kind}", self.running.path, error)
        return operation

    def _write(self, call: OperationCall, operation: Operation | None) -> None:
        """Add a step to the program."""
        made = calls.floats((call.result,), 2)
        given = calls.floats(call.given)
        if any([t.is_nested for t in (*made, *given)]):
            self.gaps = True
            self.omissions.note("what theory expects", self.running.path, "tensors are nested")
            return
        parameters: list[Tensor] = []
        reads: list[Tensor] = []
        for t in given:
            (parameters if self.weights.holds(t) else reads).append(t)
        if call.kind in operations.NORMS:
            reads = reads[:1]  # not the running statistics
        numbers, others = self._numbers_of(reads, made, call.start)
        if not made or not (reads or any([self.weights.known(t) is not None for t in given])):
            return
        fresh = [(n, tuple(t.shape)) for t in made if (n := self.number(t)) not in others]
        if not fresh:
            return
        kind, facts = describe(StepSource(call, self.running, parameters, reads, self.weights))
        into, sizes = zip(*fresh, strict=True)
        family = operation.family if operation is not None else operations.family(call.kind)
        shapes = tuple([tuple(t.shape) for t in reads])
        self.steps.append(Step(kind, family, tuple(numbers), into, shapes, sizes, facts, self.running.path))

    def _numbers_of(self, reads: list[Tensor], made: list[Tensor], start: int) -> tuple[list[int], list[int]]:
        """The numbers of what was read, and those of them that were not written to in place."""
        first = made[0] if made else None
        in_place = first is not None and any([t is first for t in reads]) and _new(first, start)
        numbers: list[int] = []
        others: list[int] = []
        for t in reads:
            if in_place and t is first:
                numbers.append(self._before(t, start))
            else:
                numbers.append(self.number(t))
                others.append(numbers[-1])
        return numbers, others

    def _before(self, tensor: Tensor, start: int) -> int:
        """The number of what a tensor was before it was written to in place."""
        node: Any = tensor.grad_fn
        if node is None or node._sequence_nr() < start or not node.next_functions:
            return self.number(tensor)
        below: tuple[Any, int] = node.next_functions[0]
        if below[0] is None:
            return self.number(tensor)
        return self.numbers.setdefault(below, len(self.numbers))


def _new(tensor: Tensor, start: int) -> bool:
    """Whether an operation that began at this number made it; `x.float()` may just return x."""
    return tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() >= start
