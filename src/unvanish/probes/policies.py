"""Whether a loss written by hand asks for the reverse of what the batch gives: rewards, numbers, labels.

Notable:
- A policy's loss weighs what was done by a number for each sample. Done were labels, whose log-probability it
  picks, or numbers, of the size of an output. If it makes what was done less likely wherever its number is
  above zero, and more likely wherever that is below, the sign is wrong for a reward, and right for a cost.
- A number that the loss made of the batch's (an advantage) counts by how it goes with them.
- Numbers and labels: an output that is to go against its targets, and embeddings that leave their own label
  for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unvanish.core.loss_facts import AscentFacts
from unvanish.probes import operations
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import OperationCall
from unvanish.probes.graph import Graph
from unvanish.probes.likelihoods import find_lowered, is_log_probability
from unvanish.probes.loss_calls import LossCalls

FEWEST = 8  # samples: numbers of random signs agree by chance once in 2 ** 7
GOES_WITH = 0.7  # correlation of a number with the one of the batch that it was made of
AGAINST = -0.5  # cosine of an output's step with its targets
LEAVING = 0.9  # of the samples whose embedding leaves its own label
ERRORS = ("cross_entropy_loss", "nll_loss", "nll_loss_nd")
PICKS = ("gather", "getitem", "index")
HINGES = ("relu", "clamp", "clamp_min", "softplus", "log1p", "margin_ranking_loss")
DISTANCES = ("cdist", "pairwise_distance", "norm", "matmul", "mm", "__matmul__", "cosine_similarity")
EVEN = 1e-3  # relative: ratios that differ less are one factor


class Asked(NamedTuple):
    """How much more likely what was done becomes, for each sample; the line; what was done, if numbers."""

    step: Tensor
    source: str
    done: Tensor | None


def find_reversed(root: Tensor, calls: LossCalls, graph: Graph, output: Any) -> list[AscentFacts]:
    """One fact if the loss asks for the reverse; nothing if it is one of torch's own, or says nothing."""
    made = [t for t in _list_made(output) if t.is_floating_point() and t.grad_fn in graph.index]
    chosen = [t for t in made if t.numel() == calls.batch and is_log_probability(t)]
    if lowered := find_lowered(root, chosen, calls):
        return lowered
    found = _find_reward(root, calls, graph, made, chosen)
    own = not any(c.kind in operations.LOSSES for c, _ in calls.made)
    if found is None and own and len(calls.originals) == 1:
        found = _find_against(root, made, calls.originals[0], calls)
    return [] if found is None else [found]


def _list_made(output: Any) -> list[Tensor]:
    """The tensors of an output, and the numbers of a distribution that a model gives."""
    inner = getattr(output, "base_dist", output)
    held = vars(inner) if isinstance(inner, torch.distributions.Distribution) else output
    return list(tensors_in(held, 2))


def _say(kind: str, source: str = "") -> AscentFacts:
    return {"kind": kind, "slope": 1.0, "given": True, "source": source}


def _find_reward(
    root: Tensor, calls: LossCalls, graph: Graph, made: Sequence[Tensor], chosen: Sequence[Tensor]
) -> AscentFacts | None:
    """The sign with which numbers of the batch weigh what was done.

    `chosen`: log-probabilities of it that the model returned.
    """
    given = (*calls.targets.values(), *calls.numbers.values())
    numbers = [t for t in given if _is_a_number_each(t, calls)]
    if not numbers:
        return None
    picked = [(c.result, c, o) for c, o in calls.made if o.nodes[0] in graph.index and _is_picked(c, calls)]
    done = [
        (t, y) for t in made for y in calls.originals if t.shape == y.shape and t.ndim == 2 and _is_free(y)
    ]
    if not picked and not done and not chosen:
        return None
    places = [t for t, _, _ in picked] + [t for t, _ in done] + [*chosen]
    gradients = torch.autograd.grad(root, places, retain_graph=True, allow_unused=True)
    asked: list[Asked] = []
    for (t, c, o), g in zip(picked, gradients, strict=False):
        sign = 1 if c.kind in ERRORS else -1
        line = calls.lines.get(o.order, "")
        asked += [] if g is None else [Asked(sign * g.reshape(len(t), -1).sum(1), line, None)]
    for (t, y), g in zip(done, gradients[len(picked) :], strict=False):
        asked += [] if g is None else [Asked((-g * (y - t)).sum(1), "", y)]
    asked += [Asked(-g.flatten(), "", None) for g in gradients[len(places) - len(chosen) :] if g is not None]
    return _compare(asked, numbers, calls)


def _compare(asked: Iterable[Asked], numbers: Sequence[Tensor], calls: LossCalls) -> AscentFacts | None:
    """A fact if what is asked for goes against every number that it goes with at all."""
    found = None
    for step, source, done in asked:
        given = [t for t in calls.originals if t is not done]
        for number in numbers:
            if number.numel() != step.numel():
                continue
            sign = _agree(step.detach().double(), number.detach().double().flatten())
            sign *= _follow(number, given)
            if sign > 0:
                return None
            if sign < 0:
                found = _say("reward", source)
    return found


def _agree(step: Tensor, number: Tensor) -> int:
    """1 if both have one sign at each sample, -1 if the reverse; 0 if neither, or nothing is known."""
    product = step * number
    some = (product != 0) & torch.isfinite(product)
    if int(some.sum()) < FEWEST:
        return 0
    if not bool((number < 0).any()):  # only a factor tells it from other weights
        ratio = step[some] / number[some]
        if float(ratio.max() - ratio.min()) > EVEN * float(ratio.abs().max()):
            return 0
    if bool((product >= 0).all()):
        return 1
    return -1 if bool((product <= 0).all()) else 0


def _follow(number: Tensor, given: Sequence[Tensor]) -> int:
    """The sign with which a number goes with the one of the batch that it was made of."""
    if any(number is t or number._base is t for t in given):  # a column of a table, too
        return 1
    x, best = number.detach().double().flatten(), 0.0
    for t in given:
        if t.is_floating_point() and t.numel() == x.numel():
            pair = torch.stack([x, t.detach().double().flatten()])
            value = float(torch.corrcoef(pair)[0, 1])
            best = value if abs(value) > abs(best) else best
    return 0 if abs(best) < GOES_WITH else 1 if best > 0 else -1


def _is_a_number_each(t: Tensor, calls: LossCalls) -> bool:
    """Whether a target is a number for each sample, of several sizes."""
    if not t.is_floating_point() or t.numel() != (calls.batch or 0) or t.numel() < FEWEST:
        return False
    return bool(torch.isfinite(t).all()) and int(torch.unique(t).numel()) > 2


def _is_picked(call: OperationCall, calls: LossCalls) -> bool:
    """Whether labels pick a probability of each sample, its logarithm, or its cross-entropy."""
    result, batch = call.result, calls.batch or 0
    if not isinstance(result, Tensor) or len(result.shape) < 1 or result.shape[0] != batch:
        return False
    if call.kind == "log_softmax":  # that one-hot labels pick by a product
        return result.ndim == 2
    labels = [t for t in tensors_in(call.given, 2) if calls.is_target(t) and not t.is_floating_point()]
    if not labels or result.numel() != batch:
        return False
    if call.kind in PICKS and type(call.args[0].grad_fn).__name__ == "SoftmaxBackward0":
        return True
    return call.kind in ERRORS or (call.kind in PICKS and bool(result.detach().max() <= 0))


def _is_free(y: Tensor) -> bool:
    return y.is_floating_point() and bool(torch.isfinite(y).all())


def _find_against(root: Tensor, made: Sequence[Tensor], y: Tensor, calls: LossCalls) -> AscentFacts | None:
    """An output that goes against its only targets: numbers, or labels of which it makes embeddings."""
    own = next((t for t in made if len(t) == len(y)), None) if y.ndim else None
    if own is None or len(y) < FEWEST:
        return None
    gradient: Tensor | None = torch.autograd.grad(root, [own], retain_graph=True, allow_unused=True)[0]
    if gradient is None:
        return None
    step = -gradient.double().detach()
    if y.is_floating_point():
        return _judge_numbers(step, own.detach().double(), y.double())
    kinds = {c.kind for c, _ in calls.made}
    if not kinds & {*HINGES} or not kinds & {*DISTANCES}:
        return None
    return _judge_labels(step, own.detach().double(), y)


def _judge_numbers(step: Tensor, own: Tensor, y: Tensor) -> AscentFacts | None:
    """Whether the whole output goes against the targets, and away from them."""
    if step.numel() != y.numel() or int(torch.unique(y).numel()) <= 2:
        return None
    if (
        step.shape == y.shape
        and y.ndim > 1
        and _is_turned_away(step.flatten(1), own.flatten(1), y.flatten(1))
    ):
        return _say("correlation")
    step, own, y = step.flatten(), own.flatten(), y.flatten()
    against = [float(torch.cosine_similarity(step, v, dim=0)) for v in (y - y.mean(), y - own)]
    return _say("correlation") if against[0] < AGAINST and against[1] < AGAINST / 2 else None


def _is_turned_away(step: Tensor, own: Tensor, y: Tensor) -> bool:
    """Whether a loss blind to the output's size makes each sample less like its target, or its minus."""
    across = torch.cosine_similarity(step, own, dim=1).abs()
    if own.shape[1] < 2 or not bool((across < EVEN).all()):
        return False
    less = (step * y).sum(1) * (own * y).sum(1)
    return float((less < 0).double().mean()) > LEAVING


def _judge_labels(step: Tensor, own: Tensor, y: Tensor) -> AscentFacts | None:
    """Whether embeddings leave their own label for the others."""
    if own.ndim != 2 or own.shape[1] < 2 or y.ndim != 1 or int(torch.unique(y).numel()) < 2:
        return None
    same = (y[:, None] == y[None]).double()
    other, same = 1 - same, same - torch.eye(len(y), dtype=same.dtype)
    if not bool((same.sum(1) > 0).all()) or not bool((other.sum(1) > 0).all()):
        return None
    way = same @ own / same.sum(1, keepdim=True) - other @ own / other.sum(1, keepdim=True)
    along = (step * way).sum(1)
    along = along[along != 0]
    if len(along) < FEWEST or not float((along < 0).double().mean()) > LEAVING:
        return None
    return _say("embedding")
