"""Losses that torch has no single function for, and what they compare: read off the calls of the loss.

Notable:
- A cross-entropy written by hand is a logarithm that labels pick from, or targets multiply; of yes and no it
  is one if a second logarithm meets the targets too. Or labels pick from scores whose logsumexp is taken.
- A kl_div whose first argument has no gradient while its second has is a reverse divergence if the first is a
  logarithm of probabilities, and swapped if it is none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation, OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.handles import Handles
from unvanish.probes.loss_calls import LossCalls
from unvanish.probes.residual import reading

PICKS = ("gather", "getitem", "index")
LOGS = ("log", "log_softmax")
SQUARES = ("pow", "square", "abs", "__pow__")
REDUCED = ("mean", "sum")
JUDGED = (-1.0, 0.0, 1.0)
SUMS = 0.05  # how far from one a row of probabilities may add up
Found = tuple[str, Handles]  # the kind of the loss, and what it compares


def find_by_hand(calls: LossCalls, graph: Graph | None) -> list[Found]:
    """Likelihoods and differences that the loss writes by hand; the first of each."""
    reached = [] if graph is None else [(c, o) for c, o in calls.made if o.nodes[0] in graph.index]
    found = _find_picked(reached, calls) or _find_weighed(reached, calls)
    difference = calls.find_difference(graph)
    if difference is None and not found:
        found += _find_constant(reached)
    if difference is not None:
        output, target = difference[0].detach(), difference[1].detach()
        found.append(
            ("difference", _compare(difference[0], output, target, reading("mse_loss", output, target)))
        )
    return found


def _find_constant(made: list[tuple[OperationCall, Operation]]) -> list[Found]:
    """Squares of an output less one of the numbers that a judge is to say, as in a least-squares GAN."""
    summed = {id(c.args[0]) for c, _ in made if c.kind in REDUCED and c.args}
    squared = {id(c.args[0]) for c, _ in made if c.kind in SQUARES and c.args and id(c.result) in summed}
    for call, _ in made:
        numbers = [v for v in call.args if isinstance(v, (int, float)) and not isinstance(v, bool)]
        ours = [t for t in call.args if isinstance(t, Tensor)]
        if call.kind in ("sub", "rsub") and id(call.result) in squared and len(ours) == len(numbers) == 1:
            output, asked = ours[0].detach(), float(numbers[0])
            if asked in JUDGED and output.numel() > 1:
                target = torch.full_like(output, asked)
                read = reading("mse_loss", output, target)
                return [("difference", {**_compare(ours[0], output, target, read), "given": False})]
    return []


def find_others(calls: LossCalls, graph: Graph | None) -> list[Found]:
    """Calls of torch's losses that take more than an output and a target."""
    found: list[Found] = []
    for call, operation in calls.made:
        if graph is None or operation.nodes[0] not in graph.index:
            continue
        given = [t for t in call.args if isinstance(t, Tensor)]
        if call.kind == "ctc_loss" and len(call.args) > 3:
            found.append(("ctc_loss", _compare_ctc(call, given)))
        elif call.kind == "poisson_nll_loss" and len(call.args) > 2 and call.args[2]:
            found.append(("poisson_nll_loss", _compare(given[0], given[0].detach(), given[1].detach(), {})))
        elif call.kind == "kl_div" and _is_swapped(*given[:2]):
            handles = _compare(given[1], given[1].detach(), given[0].detach(), {})
            found.append(("kl_div", {**handles, "swapped": True}))
    return found


def _compare(reads: Tensor, x: Tensor, y: Tensor, how: Any) -> Handles:
    return {"reads": reads.grad_fn, "compared": (x, y), "reading": how}


def _compare_ctc(call: OperationCall, given: list[Tensor]) -> Handles:
    """What a CTC loss reads, and the share of its samples that have fewer steps than their targets need."""
    x, y = given[0], given[1]
    steps, lengths = (torch.as_tensor(v).flatten().cpu() for v in call.args[2:4])
    handles = _compare(x, x.detach(), y.detach(), {})
    short = steps < lengths
    return {**handles, "short": float(short.double().mean())}


def _is_swapped(x: Tensor, y: Tensor) -> bool:
    if x.requires_grad or not y.requires_grad or x.ndim < 1 or not x.numel():
        return False
    return bool((x > 0).any()) or bool(((x.double().exp().sum(-1) - 1).abs() > SUMS).any())


def _find_picked(made: list[tuple[OperationCall, Operation]], calls: LossCalls) -> list[Found]:
    """Logarithms of probabilities that labels pick from, or of what labels picked."""
    results = {id(c.result): c for c, _ in made}
    logged = {id(c.args[0]) for c, _ in made if c.kind == "log" and c.args}
    summed = {id(c.args[0]) for c, _ in made if c.kind == "logsumexp" and c.args}
    for call, _ in made:
        source = call.args[0] if call.kind in PICKS and call.args else None
        if not isinstance(source, Tensor) or source.ndim < 2:
            continue
        labels = next((t for t in tensors_in(call.given, 2) if calls.is_target(t)), None)
        last = source.ndim == 2 or (call.kind == "gather" and call.args[1] in (-1, source.ndim - 1))
        if labels is None or labels.is_floating_point() or not last:
            continue
        if labels.numel() * source.shape[-1] != source.numel():
            continue
        maker = results.get(id(source))
        if (maker is not None and maker.kind in LOGS) or _ends_in(source, "LogSoftmaxBackward0"):
            log = source.detach().flatten(0, -2)
        elif id(call.result) in logged or _is_logged_soon(call.result, made):
            log = source.detach().flatten(0, -2).clamp_min(0).log()
        elif id(source) in summed:
            x, y = source.detach().flatten(0, -2), labels.detach().flatten().long()
            return [("cross_entropy", _compare(source, x, y, reading("cross_entropy", x, y)))]
        else:
            continue
        return [("likelihood", _compare(source, log, labels.detach().flatten().long(), _judge(log, labels)))]
    return []


def _is_logged_soon(result: Any, made: list[tuple[OperationCall, Operation]]) -> bool:
    """Whether a logarithm of a tensor is taken, or of it and a small number."""
    sums = {id(c.result) for c, _ in made if c.kind in ("add", "clamp", "squeeze") and c.args[0] is result}
    return any(c.kind == "log" and c.args and id(c.args[0]) in sums for c, _ in made)


def _ends_in(x: Tensor, name: str) -> bool:
    return type(x.grad_fn).__name__ == name


def _judge(log: Tensor, labels: Tensor) -> Any:
    return reading("nll_loss", log, labels.detach().flatten().long())


def _is_one_hot(y: Tensor) -> bool:
    """Whether whole numbers say yes at one class of each row, as `one_hot` makes them."""
    if y.ndim < 2 or y.is_complex():
        return False
    return bool(((y == 0) | (y == 1)).all()) and bool((y.sum(-1) == 1).all())


def _find_weighed(made: list[tuple[OperationCall, Operation]], calls: LossCalls) -> list[Found]:
    """Logarithms that targets of the same shape multiply."""
    logs = {id(c.result): c for c, _ in made if c.kind in LOGS}
    met: dict[int, tuple[Tensor, Tensor]] = {}
    for call, _ in made:
        given = [t for t in call.args if isinstance(t, Tensor)] if call.kind == "mul" else []
        mine = [t for t in given if id(t) in logs or (t.requires_grad and _ends_in(t, "LogSoftmaxBackward0"))]
        answers = [t for t in given if calls.is_target(t) and (t.is_floating_point() or _is_one_hot(t))]
        if mine and answers and mine[0].shape == answers[0].shape and mine[0].ndim > 1:
            met[id(mine[0])] = mine[0], answers[0]
    if not met:
        return []
    log, y = next(iter(met.values()))
    kind = "binary_likelihood" if len(met) > 1 else "likelihood"
    x, y = log.detach().exp() if len(met) > 1 else log.detach(), y.to(log.dtype)
    judge = "binary_cross_entropy" if len(met) > 1 else "nll_loss"
    return [(kind, _compare(log, x, y.detach(), reading(judge, x, y.detach())))]
