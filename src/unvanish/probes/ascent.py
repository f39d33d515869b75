"""Whether a loss that is below zero raises what it should lower: the sign with which it takes likelihoods.

Notable: the gradient of the whole loss is taken at the results of its own losses and logarithms, which costs
a backward through the loss alone, and only if the loss is negative: a cross-entropy or a squared error is
not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unvanish.core.facts import AscentFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.loss_calls import LossCalls

LOGARITHMS = ("log", "log1p", "log_sigmoid", "logsigmoid", "log_softmax")
PICKING = ("gather", "getitem", "index")  # by the targets, of log-probabilities that the model makes
NORMALISED = 0.05  # nats that the probabilities of a sample may lack or exceed
MOST = 16  # results that are looked at
EVEN = 1e-3  # relative: gradients that differ less are those of a mean or a sum
Candidate = tuple[OperationCall, Operation]


def find_ascents(root: Tensor, calls: LossCalls, graph: Graph | None) -> list[AscentFacts]:
    """The losses and logarithms of likelihoods that a negative loss makes worse as it falls."""
    if graph is None or not float(root.detach()) < 0:
        return []
    some = [(c, o) for c, o in calls.made if _speaks(c, calls) and o.nodes[0] in graph.index][:MOST]
    results = [c.result for c, _ in some if isinstance(c.result, Tensor)]
    if not results or len(results) < len(some):
        return []
    gradients = torch.autograd.grad(root, results, retain_graph=True, allow_unused=True)
    found = [
        _judge(pair, result.detach(), gradient, calls)
        for pair, result, gradient in zip(some, results, gradients, strict=True)
        if gradient is not None
    ]
    falls = any(
        _is_lowered(o, g) for (_, o), g in zip(some, gradients, strict=True) if g is not None
    )  # a loss about the targets beside which others may be raised on purpose
    return [facts for facts in found if facts is not None and not (falls and facts["given"])]


def _is_lowered(operation: Operation, gradient: Tensor) -> bool:
    """Whether a loss against the batch's targets falls with the whole."""
    about = operation.kind in operations.LOSSES and operation.handles.get("given", False)
    return about and bool((gradient >= 0).all()) and bool((gradient > 0).any())


def _speaks(call: OperationCall, calls: LossCalls) -> bool:
    """Whether a call makes a loss, a difference, or a logarithm of a likelihood."""
    if call.kind not in PICKING:
        return call.kind in (*operations.LOSSES, *LOGARITHMS, "softplus", "sub")
    source = call.args[0] if call.args else None
    if not isinstance(source, Tensor) or source.ndim < 2 or not source.is_floating_point():
        return False
    if not any(calls.is_target(t) for t in tensors_in(call.given, 2)):
        return False
    with torch.no_grad():
        return any(float(source.logsumexp(axis).abs().max()) < NORMALISED for axis in (1, -1))


def _judge(pair: Candidate, result: Tensor, gradient: Tensor, calls: LossCalls) -> AscentFacts | None:
    """What one result says: it is raised though it is a loss, or lowered though it is a likelihood."""
    call, operation = pair
    kind, source = operations.LOSSES.get(operation.kind, operation.kind), calls.lines.get(operation.order, "")
    if kind == "sub":
        given = any(calls.is_target(t) for t in tensors_in(call.given, 1))
        off = result * gradient
        wrong = given and bool((off <= 0).all()) and bool((off < 0).any())
        return {"kind": "difference", "slope": 1.0, "given": True, "source": source} if wrong else None
    if operation.kind in operations.LOSSES:
        slope = operation.handles["reading"].get("residual", 1.0) if "reading" in operation.handles else 1.0
        given = operation.handles.get("given", False)
        wrong = bool((gradient <= 0).all()) and bool((gradient < 0).any())
        return {"kind": kind, "slope": slope, "given": given, "source": source} if wrong else None
    raised = -gradient if kind == "softplus" else gradient
    if not bool((raised >= 0).all()) or not bool((raised > 0).any()):
        return None
    taken = raised > 0
    log = -result[taken] if kind == "softplus" else result[taken]
    if bool((log > 1e-6).any()):  # no logarithm of a probability
        return None
    slope = float((1 - log.double().exp()).mean())
    met = kind in PICKING or _meets_targets(call.result, calls)
    given = met and _is_even(raised[taken])
    return {"kind": kind, "slope": slope, "given": given, "source": source}


def _is_even(values: Tensor) -> bool:
    return bool((values.max() - values.min()) <= EVEN * values.max())


def _meets_targets(log: Tensor, calls: LossCalls) -> bool:
    """Whether the targets pick or weigh a logarithm, as labels do."""
    for call, _ in calls.made:
        given: Sequence[Tensor] = list(tensors_in(call.given, 2))
        others = [t for t in given if calls.is_target(t)]
        if others and any(t is log for t in given):
            return True
    return False
