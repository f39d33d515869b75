"""The forward of an examination: the model and the loss run once, watched; what they raise names its module.

Notable:
- If the loss is not finite, the forward runs again, and every result is checked.
- If it alone overflows, the gradient of a random unit cotangent at the outputs is followed instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from unvanish.core.omissions import Omissions
from unvanish.probes import calls, sites
from unvanish.probes.checkpoints import run_reentrant_blocks
from unvanish.probes.custom import keep_calls
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.events import Operation
from unvanish.probes.forward import Forward
from unvanish.probes.measures import finite
from unvanish.probes.passes import ForwardPass, Specimen
from unvanish.probes.program.tape import Taped
from unvanish.probes.steps import Stepped


@dataclass
class Nudge:
    """What results of operations become, by order and number; `late`: only once the loss begins."""

    changes: Mapping[tuple[int, int], Callable[[Tensor], Tensor]]
    late: bool = False
    met: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = field(default_factory=list)

    def take(self, operation: Operation, result: Tensor) -> None:
        """Change a result if it is one of them, in place, or keep it for later."""
        change = self.changes.get((operation.order, result.output_nr))
        if change is None:
            return
        self.met.append((result, change))
        if not self.late:
            self.apply()

    def apply(self) -> None:
        """Write over what was met."""
        while self.met:
            result, change = self.met.pop()
            result.data.copy_(change(result.detach()))


def find_lines(specimen: Specimen, orders: Collection[int]) -> dict[int, tuple[str, str]]:
    """Kind and line of the user's code of some operations, by their order, in one more forward."""
    again = _run(replace(specimen, omissions=Omissions()), orders=orders)
    made = (again.watched.operations[i] for i in orders if i < len(again.watched.operations))
    return {o.order: (o.kind, o.facts.get("line", "")) for o in made}


def run_moved(specimen: Specimen, nudge: Nudge) -> float:
    """The loss of one more forward in which a result becomes another one."""
    quiet = replace(
        specimen, omissions=Omissions(), theory=False, manner=replace(specimen.manner, sizes=False)
    )
    return float(_run(quiet, nudge=nudge).loss.detach())


def run_forward(specimen: Specimen, check_finite: bool = False) -> ForwardPass:
    """The forward of a specimen; CheckError if its parts do not fit together, ModelCrash if it raises."""
    found = _run(specimen, check_finite)
    if check_finite or math.isfinite(float(found.loss.detach())):
        return found
    found = _run(specimen, check_finite=True)
    return replace(found, overflow=_before_the_overflow(found))


def _before_the_overflow(found: ForwardPass) -> Tensor | None:
    """The product of finite outputs with a random cotangent; None unless only the loss overflows."""
    outputs = calls.predictions(found.output)
    if math.isnan(float(found.loss.detach())) or not outputs or not all(finite(t) for t in outputs):
        return None
    return calls.random_cotangent(found.output)


def _run(
    specimen: Specimen, check_finite: bool = False, orders: Collection[int] = (), nudge: Nudge | None = None
) -> ForwardPass:
    """With inputs that require a gradient, unless the model refuses them."""
    if not specimen.manner.inputs:
        return _attempt(specimen, check_finite, orders, nudge, gradients=False)
    try:
        return _attempt(specimen, check_finite, orders, nudge, gradients=True)
    except ModelCrash as crash:
        text = str(crash.__cause__)
        refused = any(words in text for words in ("requires grad", "require grad", "requires_grad"))
        if not isinstance(crash.__cause__, RuntimeError) or not refused:
            raise
    return _attempt(specimen, check_finite, orders, nudge, gradients=False)


def _attempt(
    specimen: Specimen, check_finite: bool, orders: Collection[int], nudge: Nudge | None, gradients: bool
) -> ForwardPass:
    call = calls.prepare(specimen.batch, specimen.loss, gradients=gradients)
    watched = _watch(specimen, call)
    watched.check_finite, watched.asked = check_finite, orders
    watched.move = None if nudge is None else nudge.take
    watched.loss_calls.start(call.targets)
    entering = {name: watched.entering(name, x) for name, x in call.originals.items()}
    with (
        watched.watching() if specimen.manner.watched else nullcontext(),
        run_reentrant_blocks(call.inputs.values(), watched),
        keep_calls(lambda: watched.running.path, specimen.omissions) as custom,
    ):
        try:
            output = call.run(specimen.model, watched)
        except CheckError:
            raise
        except Exception as error:
            site = "loss" if watched.in_loss else watched.running.path
            raise _crash(watched, call, error, site) from error
        if not watched.in_loss:
            watched.start_loss()
        if nudge is not None and nudge.late:
            nudge.apply()
        try:
            loss = call.objective(output)
        except CheckError:
            raise
        except Exception as error:
            raise _crash(watched, call, error, "loss") from error
    for name, x in call.originals.items() if not entering else ():  # what a training step gave its model
        entering[name] = watched.entering(name, x)
    watched.small.settle()
    output = output.output if isinstance(output, Stepped) else output
    own = "output.loss" if calls.own_loss(output) is not None else "random cotangent"
    scalar = check_scalar(loss)
    return ForwardPass(call, watched, entering, output, scalar, call.kind or own, custom=custom)


def _watch(specimen: Specimen, call: calls.Call) -> Forward:
    model, norms, modules = specimen.model, specimen.norms, specimen.modules
    known = specimen.parameters, norms, modules, specimen.omissions
    whole = isinstance(specimen.loss, calls.Runner)  # of which theory sees no beginning
    if specimen.theory and specimen.manner.open and not whole:
        return Taped(model, model, call, *known)
    watched = Forward(model, call.batch_size, *known)
    watched.alters = specimen.manner.open
    watched.has_read = not specimen.manner.signs
    watched.sizes = specimen.manner.sizes
    return watched


def _crash(watched: Forward, call: calls.Call, error: Exception, site: str) -> ModelCrash:
    where = f"in {site}" if site else "in its own forward"
    text = f"the {'loss' if site == 'loss' else 'model'} raised {type(error).__name__} {where}: {error}"
    return ModelCrash(text, site, sites.assemble_crash(watched, call, text))


def check_scalar(value: Any) -> Tensor:
    """A loss, if a backward can begin at it; CheckError says what it is if not."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise CheckError(
            f"the loss returned a {kind}, not a scalar tensor; return the tensor itself, without .item()"
        )
    if value.numel() != 1:
        raise CheckError(
            f"the loss is not a scalar: its shape is {tuple(value.shape)}; reduce it, say with .mean()"
        )
    if value.is_complex() or not value.is_floating_point():
        raise CheckError(f"the loss is {value.dtype}, but a gradient needs a real floating-point scalar")
    return value.reshape(()) if value.ndim or value.grad_fn is None else value
