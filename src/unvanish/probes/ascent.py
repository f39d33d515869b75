"""Whether a loss raises what it should lower: the sign with which it takes errors, likelihoods, similarities.

Notable:
- The gradient of the whole loss is taken at the results of its own losses and logarithms, which costs a
  backward through the loss alone, and nothing if the loss is one of torch's own, as it is.
- An absolute value of the whole loss turns its sign on purpose (flooding, a capacity), and is left alone.
- Of a loss written by hand, as an overlap, the gradient at the output says which way yes and no are driven.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.loss_facts import AscentFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.graph import Graph, walk
from unvanish.probes.likelihoods import find_both_lowered
from unvanish.probes.loss_calls import LossCalls
from unvanish.probes.policies import find_reversed

LOGARITHMS = ("log", "log1p", "log_sigmoid", "logsigmoid", "log_softmax")
PICKING = ("gather", "getitem", "index")  # by the targets, of log-probabilities that the model makes
OTHERS = ("ctc_loss", "poisson_nll_loss", "multi_margin_loss", "margin_ranking_loss", "hinge_embedding_loss")
LOSSES = {*operations.LOSSES, *OTHERS}
SIMILARITY = "cosine_similarity"
PROBABILITIES = ("SigmoidBackward0", "SoftmaxBackward0")
AFFINE = {
    f"{name}Backward0"
    for name in ("Sub", "Add", "Neg", "Clamp", "ClampMin", "Select", "Index", "Gather", "View")
} | {"RsubBackward1", "ClampBackward1"}
SCORES = ("AddmmBackward0", "ConvolutionBackward0", "ViewBackward0", "SqueezeBackward1")
LOGGED = ("log", "log1p", "binary_cross_entropy")
MEETING = ("mean", "sum", "sub", "rsub", "mul", "pow", "mse_loss", "l1_loss")
PLAIN = ("mean", "sum", "add", "sub", "rsub", "mul", "div", "neg", "getitem", "detach")
SOFTENED = ("softmax", "log_softmax", "view", "reshape", "flatten")
SURE = 0.9  # how far from where a sigmoid is driven it stands
STEPS = 8  # of AFFINE, at most
NEAR = 64  # nodes from the loss on, in which its absolute value is looked for
FEWEST = 4  # answers of yes or no
MAJORITY = 0.5
NORMALISED = 0.05  # nats that the probabilities of a sample may lack or exceed
MOST = 16  # results that are looked at
EVEN = 1e-3  # relative: gradients that differ less are those of a mean or a sum
Candidate = tuple[OperationCall, Operation]


def find_ascents(
    root: Tensor, calls: LossCalls, graph: Graph | None, output: Any = None
) -> list[AscentFacts]:
    """The losses, and the logarithms of likelihoods, that a loss makes worse as it falls.

    `output`: what the model returned.
    """
    if graph is None or _is_own(root, calls):
        return []
    some = [(c, o) for c, o in calls.made if _speaks(c, calls) and o.nodes[0] in graph.index][:MOST]
    if _is_turned(graph):
        return []
    found = _judge_all(root, some, calls)
    if any(facts["given"] for facts in found):
        return found
    return (
        find_overlap(root, calls, graph, output)
        or find_reversed(root, calls, graph, output)
        or find_both_lowered(root, calls)
        or found
        or _find_saturated(root, calls, graph)
    )


def find_turned_twice(root: Tensor, calls: LossCalls, graph: Graph | None) -> list[AscentFacts]:
    """Losses against the targets that are raised beside others, below which is a function by hand."""
    if graph is None or not any(hasattr(type(n), "_forward_cls") for n in graph.nodes):
        return []
    some = [(c, o) for c, o in calls.made if o.kind in LOSSES and o.nodes[0] in graph.index]
    some = [(c, o) for c, o in some if _is_given(c, o, calls)][:MOST]
    results = [c.result for c, _ in some]
    gradients = torch.autograd.grad(root, results, retain_graph=True, allow_unused=True) if results else ()
    found = []
    for (call, operation), gradient in zip(some, gradients, strict=True):
        below: Any = walk(call.result.grad_fn).nodes
        raised = gradient is not None and bool((gradient < 0).all())
        if raised and any(hasattr(type(n), "_forward_cls") for n in below):
            kind, source = (
                operations.LOSSES.get(operation.kind, operation.kind),
                calls.lines.get(operation.order, ""),
            )
            facts: AscentFacts = {"kind": kind, "slope": 1.0, "given": True, "source": source}
            found.append(facts)
    return found


def _is_own(root: Tensor, calls: LossCalls) -> bool:
    """Whether the loss is one of torch's own, as it is."""
    return len(calls.made) == 1 and calls.made[0][0].result is root and calls.made[0][0].kind in LOSSES


def _find_saturated(root: Tensor, calls: LossCalls, graph: Graph) -> list[AscentFacts]:
    """Sigmoids of the loss that it drives from one end to the other, without a logarithm that helps them."""
    if calls.originals:  # what a gate or a penalty does beside them is slow on purpose
        return []
    logged = {id(c.args[0]) for c, _ in calls.made if c.kind in LOGGED and c.args}
    met = {
        id(t) for c, _ in calls.made if c.kind in MEETING for t in tensors_in(c.args, 1) if t is not c.result
    }
    some = [
        (c, o)
        for c, o in calls.made
        if c.kind == "sigmoid" and o.nodes[0] in graph.index and id(c.result) in met - logged
    ]
    results = [c.result for c, _ in some]
    if len(results) != 1:
        return []
    gradient: Tensor | None = torch.autograd.grad(root, results, retain_graph=True, allow_unused=True)[0]
    if gradient is None or not bool(gradient.abs().sum() > 0):
        return []
    p = results[0].detach().double()
    off, slope = (p - (gradient < 0).double()).abs().mean(), (4 * p * (1 - p)).mean()
    source = calls.lines.get(some[0][1].order, "")
    return (
        [{"kind": "sigmoid", "slope": float(slope), "given": False, "source": source}] if off > SURE else []
    )


def _is_turned(graph: Graph) -> bool:
    """Whether the absolute value of a single number leads to the loss."""
    nodes: Any = graph.nodes
    return any(type(n).__name__ == "AbsBackward0" and not n._input_metadata[0].shape for n in nodes[:NEAR])


def _judge_all(root: Tensor, some: list[Candidate], calls: LossCalls) -> list[AscentFacts]:
    """What the results of losses, logarithms and similarities say."""
    results = [c.result for c, _ in some if isinstance(c.result, Tensor)]
    if not results or len(results) < len(some):
        return []
    gradients = torch.autograd.grad(root, results, retain_graph=True, allow_unused=True)
    found = [
        _judge(pair, result.detach(), gradient, calls, bool(root.detach() < 0))
        for pair, result, gradient in zip(some, results, gradients, strict=True)
        if gradient is not None
    ]
    falls = any(
        _is_lowered(c, o, g, calls) for (c, o), g in zip(some, gradients, strict=True) if g is not None
    )  # a loss about the targets beside which others may be raised on purpose
    return [facts for facts in found if facts is not None and not (falls and facts["given"])]


def _is_given(call: OperationCall, operation: Operation, calls: LossCalls) -> bool:
    """Whether a loss is about the batch's targets."""
    other = operation.kind in OTHERS and any(calls.is_target(t) for t in tensors_in(call.given, 1))
    return other or operation.handles.get("given", False)


def _is_lowered(call: OperationCall, operation: Operation, gradient: Tensor, calls: LossCalls) -> bool:
    """Whether a loss against the targets falls with the whole, or a likelihood that they pick rises."""
    if operation.kind in PICKING:
        return bool((gradient <= 0).all()) and bool((gradient < 0).any())
    about = operation.kind in LOSSES and _is_given(call, operation, calls)
    return about and bool((gradient >= 0).all()) and bool((gradient > 0).any())


def _is_all(call: OperationCall, calls: LossCalls) -> bool:
    """Whether means, sums and factors of similarities with what does not learn make the whole loss."""
    return all(c.kind == call.kind or c.kind in PLAIN for c, _ in calls.made)


def _count_kinds(values: Tensor) -> int:
    kinds: Tensor = torch.unique(values.detach())
    return kinds.numel()


def _is_taught(call: OperationCall, calls: LossCalls) -> bool:
    """Whether an error against what does not learn, as a teacher's answer, makes the whole loss."""
    pair = list(tensors_in(call.args, 1))[:2]
    if len(pair) < 2 or _count_kinds(pair[1]) < 3 or _learns(pair[1]) == _learns(pair[0]):
        return False
    return all(c.kind in (call.kind, *PLAIN, *SOFTENED) for c, _ in calls.made)


def _learns(t: Tensor) -> bool:
    """Whether a parameter lies below a tensor, and not the model's input alone."""
    leaves = walk(t.grad_fn).nodes if t.grad_fn is not None else ()
    return any(isinstance(getattr(node, "variable", None), nn.Parameter) for node in leaves)


def _speaks(call: OperationCall, calls: LossCalls) -> bool:
    """Whether a call makes a loss, a difference, a similarity, or a logarithm of a likelihood."""
    if call.kind == SIMILARITY:
        given = list(tensors_in(call.given, 1))
        return any(calls.is_target(t) for t in given) or (
            any(not t.requires_grad for t in given) and _is_all(call, calls)
        )
    if call.kind not in PICKING:
        return call.kind in (*LOSSES, *LOGARITHMS, "softplus", "sub")
    source = call.args[0] if call.args else None
    if not isinstance(source, Tensor) or source.ndim < 2 or not source.is_floating_point():
        return False
    if not any(calls.is_target(t) for t in tensors_in(call.given, 2)):
        return False
    with torch.no_grad():
        if float(source.min()) >= 0:
            return any(float((source.sum(axis) - 1).abs().max()) < NORMALISED for axis in (1, -1))
        return any(float(source.logsumexp(axis).abs().max()) < NORMALISED for axis in (1, -1))


def _judge(
    pair: Candidate, result: Tensor, gradient: Tensor, calls: LossCalls, negative: bool
) -> AscentFacts | None:
    """What one result says: it is raised though it is a loss, or lowered though it is a likelihood."""
    call, operation = pair
    kind, source = operations.LOSSES.get(operation.kind, operation.kind), calls.lines.get(operation.order, "")
    if kind == "sub":
        given = any(calls.is_target(t) for t in tensors_in(call.given, 1))
        off = result * gradient
        wrong = given and bool((off <= 0).all()) and bool((off < 0).any())
        return {"kind": "difference", "slope": 1.0, "given": True, "source": source} if wrong else None
    if operation.kind in LOSSES:
        slope = operation.handles["reading"].get("residual", 1.0) if "reading" in operation.handles else 1.0
        given = _is_given(call, operation, calls) or _is_taught(call, calls)
        wrong = bool((gradient <= 0).all()) and bool((gradient < 0).any())
        return {"kind": kind, "slope": slope, "given": given, "source": source} if wrong else None
    raised = -gradient if kind == "softplus" else gradient
    if not bool((raised >= 0).all()) or not bool((raised > 0).any()):
        return None
    if kind == SIMILARITY:
        return {"kind": kind, "slope": 1.0, "given": True, "source": source}
    return _judge_logarithm(pair, result, raised, calls, negative)


def _judge_logarithm(
    pair: Candidate, result: Tensor, raised: Tensor, calls: LossCalls, negative: bool
) -> AscentFacts | None:
    """What a likelihood says that the loss lowers."""
    call, kind = pair[0], pair[1].kind
    taken = raised > 0
    log = -result[taken] if kind == "softplus" else result[taken]
    if kind in PICKING and bool((log > 0).all()):
        log = log.log()
    if bool((log > 1e-6).any()):  # no logarithm of a probability
        return None
    slope = float((1 - log.double().exp()).mean())
    met = kind in PICKING or _meets_targets(call.result, calls)
    given = (met and _is_even(raised[taken])) or (kind == "log_softmax" and _is_diagonal(raised))
    sure = (
        given or negative or (_is_of_probability(call.result, kind) and not _is_weighed(call.result, calls))
    )
    source = calls.lines.get(pair[1].order, "")
    return {"kind": kind, "slope": slope, "given": given, "source": source} if sure else None


def _is_of_probability(log: Any, kind: str) -> bool:
    """Whether a logarithm was taken of what a sigmoid or a softmax made, or of one less it."""
    if kind not in ("log", "log1p"):
        return True
    node: Any = log.grad_fn.next_functions[0][0]
    for _ in range(STEPS):
        name = type(node).__name__
        if name in PROBABILITIES:
            return True
        edges = [n for n, _ in node.next_functions if n is not None] if name in AFFINE else []
        if len(edges) != 1:
            return False
        node = edges[0]
    return False


def _is_weighed(log: Any, calls: LossCalls) -> bool:
    """Whether something that learns is multiplied with a logarithm, as in an entropy."""
    for call, _ in calls.made:
        given = list(tensors_in(call.args, 1)) if call.kind == "mul" else []
        if any(t is log for t in given) and sum(t.requires_grad for t in given) > 1:
            return True
    return False


def find_overlap(root: Tensor, calls: LossCalls, graph: Graph, output: Any) -> list[AscentFacts]:
    """A loss written by hand that drives the output to no where the targets say yes, and the reverse."""
    if any(c.kind in LOSSES or _is_picked(c, calls) for c, _ in calls.made):
        return []
    answers = [t for t in calls.originals if _is_yes_or_no(t)]
    labels = [t for t in calls.originals if not t.is_floating_point()]
    answers += [t for t in calls.targets.values() if any(_is_one_hot(t, y) for y in labels)]
    made = [c.result for c, _ in calls.made if c.kind in ("sigmoid", "softmax")]
    places = [t for t in (*tensors_in(output), *made) if isinstance(t, Tensor) and _can_be_yes(t, graph)]
    pairs = [(t, y) for t in places for y in answers if t.shape == y.shape][:2]
    if not pairs:
        return []
    gradients = torch.autograd.grad(root, [t for t, _ in pairs], retain_graph=True, allow_unused=True)
    for (_, y), gradient in zip(pairs, gradients, strict=True):
        if gradient is not None:
            right = gradient * (1 - 2 * y.to(gradient.dtype))
            if bool((right <= 0).all()) and bool(((right < 0).double().mean()) > MAJORITY):
                return [{"kind": "overlap", "slope": 1.0, "given": True, "source": ""}]
    return []


def _is_picked(call: OperationCall, calls: LossCalls) -> bool:
    """Whether targets meet a logarithm, whose sign was read already."""
    return call.kind in LOGARITHMS and _meets_targets(call.result, calls)


def _is_yes_or_no(y: Tensor) -> bool:
    low, high = (float(v) for v in torch.aminmax(y)) if y.numel() >= FEWEST and not y.is_complex() else (0, 0)
    return (low, high) == (0, 1) and bool(((y == 0) | (y == 1)).all())


def _is_one_hot(t: Tensor, y: Tensor) -> bool:
    """Whether a target says yes at the class of a label and no at all others."""
    if t.ndim != y.ndim + 1 or t.ndim < 2 or (len(t), *t.shape[2:]) != tuple(y.shape) or not _is_yes_or_no(t):
        return False
    return bool((t.sum(1) == 1).all()) and bool((t.long().argmax(1) == y).all())


def _can_be_yes(t: Tensor, graph: Graph) -> bool:
    """Whether a sigmoid, a softmax or a layer made a tensor: a distance says yes the other way round."""
    return t.grad_fn in graph.index and type(t.grad_fn).__name__ in (*PROBABILITIES, *SCORES)


def _is_even(values: Tensor) -> bool:
    return bool((values.max() - values.min()) <= EVEN * values.max())


def _is_diagonal(raised: Tensor) -> bool:
    """Whether a table of samples by samples is asked for at its diagonal alone: each sample's own partner."""
    square = raised.ndim == 2 and raised.shape[0] == raised.shape[1] >= FEWEST
    return square and _is_even(raised.diagonal()) and not bool((raised - raised.diagonal().diag()).any())


def _meets_targets(log: Tensor, calls: LossCalls) -> bool:
    """Whether the targets pick or weigh a logarithm, as labels do."""
    for call, _ in calls.made:
        given: Sequence[Tensor] = list(tensors_in(call.given, 2))
        others = [t for t in given if calls.is_target(t)]
        if others and any(t is log for t in given):
            return True
    return False
