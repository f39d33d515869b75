"""What a loss asks for beyond its targets: weights of classes, and labels that were smoothed.

Notable:
- Weights and smoothing are read from the arguments of torch's own losses. Of a loss written by hand the
  gradient at the logarithms of the probabilities is the answer it asks for, if all samples ask alike.
- A mean over weighted samples divides by the sum of the weights, so weights that are all negative are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unvanish.core.loss_facts import WishFacts
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import Operation
from unvanish.probes.fit import IGNORED
from unvanish.probes.graph import Graph
from unvanish.probes.handles import Weighing
from unvanish.probes.loss_calls import LossCalls
from unvanish.probes.shares import find_drowning, read_turned
from unvanish.probes.slips import find_slips

MEAN = 1  # torch's number for this reduction
EVEN = 1e-3  # relative: shares that differ less are one number
ENOUGH = 32  # labels: with fewer, a batch says little of how frequent classes are
FREQUENT = 0.25  # of the labels, at least, that the most frequent class has
TIMES = 4  # as frequent as the rarest class, and as large as its weight
NAMED = 8  # classes that are listed


def find_wishes(
    root: Tensor | None, operations: list[Operation], calls: LossCalls, graph: Graph | None, output: Any
) -> list[WishFacts]:
    """Weights that turn, silence or invert classes, and labels of which little or the reverse is left.

    `root`: the loss, if its gradient at the output may be asked for.
    """
    found: list[WishFacts] = []
    for o in operations:
        if "weighing" in o.handles and graph is not None and o.nodes[0] in graph.index:
            x, y = o.handles["compared"]
            source = calls.lines.get(o.order, "")
            wishes = _judge_call(o, x, y, calls) or find_drowning(root, o, x, y, calls, graph)
            found += [{**facts, "source": source} for facts in wishes]
    found += [] if graph is None else find_slips(calls, graph)
    found += [] if graph is None or found else _weigh_by_hand(calls, graph)
    if found or graph is None or root is None or any("weighing" in o.handles for o in operations):
        return found
    share = _read_by_hand(root, calls, graph, output)
    return [] if share is None else [_smoothed(share)]


def _describe(how: Any, share: float, classes: Tensor) -> WishFacts:
    places = classes.flatten().nonzero().flatten().tolist()
    return {"how": how, "share": share, "classes": tuple(places[:NAMED]), "source": ""}


def _smoothed(share: float) -> WishFacts:
    return {"how": "inverted" if share < 0 else "smoothed", "share": share, "classes": (), "source": ""}


def _judge_call(o: Operation, x: Tensor, y: Tensor, calls: LossCalls) -> list[WishFacts]:
    """What one call of a cross-entropy asks for."""
    weighing = o.handles["weighing"]
    turned = read_turned(y, calls) if y.is_floating_point() else None
    found: list[WishFacts] = [] if turned is None or turned >= 1 else [_smoothed(turned)]
    if o.kind.startswith("binary"):
        return _judge_binary(weighing, y) + found
    if weighing.smoothing > 0:
        found.append(_smoothed(1 - weighing.smoothing))
    if weighing.weight is not None and not y.is_floating_point():
        found += _judge_classes(weighing, y, x.shape[1 if x.ndim > 1 else 0])
    return found


def _judge_classes(weighing: Weighing, y: Tensor, classes: int) -> list[WishFacts]:
    """Weights below zero, of zero, or the larger the more frequent a class is."""
    labels = y[(y != weighing.ignored) & (y >= 0) & (y < classes)].flatten()
    weight = weighing.weight
    if weight is None or not labels.numel():
        return []
    counts, weights = torch.bincount(labels, minlength=classes).cpu(), weight.detach().double().cpu()
    present, total = counts > 0, float((counts * weights).sum())
    if weighing.reduction == MEAN and total < 0:
        weights = -weights
    share = counts / labels.numel()
    if bool((turned := present & (weights < 0)).any()):
        return [_describe("negative", float(share[turned].sum()), turned)]
    if bool((silent := present & (weights == 0)).any()):
        alone = bool(silent.sum() == 1) and bool(silent[0] | silent[-1])  # "none of the classes" is left out
        how = "left out" if alone and bool((weights > 0).sum() > 1) else "zero"
        return [_describe(how, float(share[silent].sum()), silent)]
    most, least = int(counts.argmax()), int(torch.where(present, counts, 1 << 30).argmin())
    if labels.numel() < ENOUGH or float(share[most]) < max(FREQUENT, TIMES * float(share[least])):
        return []
    if float(weights[most]) < TIMES * float(weights[least]):
        return []
    rare = torch.zeros_like(present)
    rare[least] = True
    return [_describe("frequency", float(weights[least] / weights[most]), rare)]


def _weigh_by_hand(calls: LossCalls, graph: Graph) -> list[WishFacts]:
    """What a factor of each sample asks for that is a number of its class, looked up by its label."""
    labels = [y for y in calls.originals if y.ndim == 1 and not y.is_floating_point() and y.numel() >= ENOUGH]
    for call, operation in calls.made if labels else ():
        if call.kind != "mul" or operation.nodes[0] not in graph.index:
            continue
        factors = [t for t in tensors_in(call.args, 1) if calls.is_target(t) and t.is_floating_point()]
        for y, w in ((y, w) for y in labels for w in factors if w.shape == y.shape and int(y.min()) >= 0):
            if (weight := _read_classes(w.detach().double(), y)) is None:
                continue
            weighing = Weighing(weight, None, 0.0, IGNORED, MEAN)
            found = _judge_classes(weighing, y, len(weight))
            source = calls.lines.get(operation.order, "")
            return [{**f, "source": source} for f in found if f["how"] == "frequency"]
    return []


def _read_classes(w: Tensor, y: Tensor) -> Tensor | None:
    """The factor of each class, if all samples of a class have the same; None if not, or if all have one."""
    counts = torch.bincount(y)
    means = torch.zeros(len(counts), dtype=w.dtype).scatter_add_(0, y, w) / counts.clamp_min(1)
    alike = bool(((w - means[y]).abs() <= EVEN * w.abs().max()).all())
    signed = bool((w > 0).all()) or bool((w < 0).all())
    return means.abs() if alike and signed and _spread(means[counts > 0]) > 0 else None


def _judge_binary(weighing: Weighing, y: Tensor) -> list[WishFacts]:
    """Weights of yes, or of each number, of a binary cross-entropy."""
    if weighing.weight is not None and bool((negative := weighing.weight < 0).any()):
        return [_describe("negative", float(negative.double().mean()), torch.zeros(1))]
    if weighing.positive is None or not y.numel():
        return []
    positive = weighing.positive.detach().double().expand_as(y)
    yes = y.double()
    some = yes > 0
    if bool((positive < 0)[some].any()):
        return [_describe("negative", float(((positive < 0) & some).double().mean()), torch.tensor([0, 1]))]
    if some.any() and bool((positive[some] == 0).all()):
        return [_describe("zero", float(yes.mean()), torch.tensor([0, 1]))]
    share, weight = float(yes.mean()), float(positive[some].mean()) if bool(some.any()) else 1.0
    if y.numel() < ENOUGH or not 0 < share < 1:
        return []
    if share <= FREQUENT and weight <= 1 / TIMES:
        return [_describe("frequency", weight, torch.tensor([0, 1]))]
    if share >= 1 - FREQUENT and weight >= TIMES:
        return [_describe("frequency", 1 / weight, torch.tensor([1, 0]))]
    return []


def _read_by_hand(root: Tensor, calls: LossCalls, graph: Graph, output: Any) -> float | None:
    """How much more the label's class is asked for than another, of all that is asked for."""
    made = [c.result for c, _ in calls.made if c.kind == "log_softmax"]
    logs = [t for t in (*made, *tensors_in(output)) if _is_log_softmax(t, graph)]
    labels = [t for t in calls.originals if not t.is_floating_point() and t.numel() > 1]
    pairs = [(t, y) for t in logs for y in labels if (len(t), *t.shape[2:]) == tuple(y.shape)]
    if not pairs:
        return None
    log, y = pairs[0]
    if int(y.min()) < 0 or int(y.max()) >= log.shape[1] or log.shape[1] < 2:
        return None
    gradient: Tensor | None = torch.autograd.grad(root, [log], retain_graph=True, allow_unused=True)[0]
    if gradient is None:
        return None
    asked = -gradient.double().movedim(1, -1)
    own = torch.nn.functional.one_hot(y.long(), log.shape[1]).bool()
    right, other = asked[own], asked[~own]
    whole = float(asked.sum() / y.numel())
    if not whole > 0 or max(_spread(right), _spread(other)) > EVEN * whole:
        return None
    return float(right.mean() - other.mean()) / whole


def _is_log_softmax(t: object, graph: Graph) -> bool:
    if not isinstance(t, Tensor) or t.ndim < 2 or t.grad_fn not in graph.index:
        return False
    return type(t.grad_fn).__name__ == "LogSoftmaxBackward0"


def _spread(x: Tensor) -> float:
    return float(x.max() - x.min())
