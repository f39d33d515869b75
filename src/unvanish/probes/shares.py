"""How a loss shares itself out among the classes: a rare one that outweighs all others, labels turned round.

Notable: weights of torch's own losses are read from their arguments, those by hand from the gradient at the
loss of each sample. The inverse of the frequencies gives every class the same share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.core.loss_facts import WishFacts
from unvanish.probes.events import Operation
from unvanish.probes.graph import Graph
from unvanish.probes.handles import Weighing
from unvanish.probes.loss_calls import LossCalls

DROWNING = 0.95  # of the loss, for one class
RARE = 0.25  # of the labels, at most
FEWEST = 4  # labels of that class: a single one in a batch may come by chance
EVEN = 1e-3  # what labels that were smoothed alike differ


def find_drowning(
    root: Tensor | None, o: Operation, x: Tensor, y: Tensor, calls: LossCalls, graph: Graph
) -> list[WishFacts]:
    """The class that has nearly all of the loss though few of the labels."""
    if y.is_floating_point() and not o.kind.startswith("binary"):
        return []
    weighing, classes = o.handles["weighing"], x.shape[min(1, x.ndim - 1)]
    labels = (y > 0.5).long().flatten() if y.is_floating_point() else y.flatten()
    weights = _read_weights(weighing, labels, y)
    if weights is None and root is not None:
        weights = _read_gradient(root, o, labels, calls, graph)
    if weights is None:
        return []
    classes = 2 if y.is_floating_point() else classes
    keep = (labels != weighing.ignored) & (labels >= 0) & (labels < classes)
    if not int(keep.sum()):
        return []
    counts = torch.bincount(labels[keep], minlength=classes).double()
    held = torch.zeros(classes, dtype=torch.float64).scatter_add_(
        0, labels[keep].cpu(), weights[keep].double().cpu()
    )
    top = int(held.argmax())
    share, part = float(held[top] / held.sum()), float(counts[top] / counts.sum())
    if not float(held.sum()) > 0 or share < DROWNING or part > RARE or counts[top] < FEWEST:
        return []
    return [{"how": "drowned", "share": share, "classes": (top,), "source": ""}]


def _read_weights(weighing: Weighing, labels: Tensor, y: Tensor) -> Tensor | None:
    """The weight of each label by the arguments; None without any."""
    if weighing.positive is not None:
        positive = weighing.positive.detach().expand_as(y).flatten()
        return torch.where(labels > 0, positive, torch.ones_like(positive))
    if weighing.weight is None or y.is_floating_point():
        return None
    return weighing.weight.detach()[labels.clamp(0, len(weighing.weight) - 1)]


def _read_gradient(
    root: Tensor, o: Operation, labels: Tensor, calls: LossCalls, graph: Graph
) -> Tensor | None:
    """The weight of each label in a loss that was reduced by hand."""
    result = next((c.result for c, made in calls.made if made is o), None)
    if not isinstance(result, Tensor) or result.numel() != labels.numel() or o.nodes[0] not in graph.index:
        return None
    if result.numel() < 2:
        return None
    gradient: Tensor | None = torch.autograd.grad(root, [result], retain_graph=True, allow_unused=True)[0]
    if gradient is None:
        return None
    weights = gradient.detach().flatten()
    return weights if _is_by_class(weights, labels) else None


def _is_by_class(weights: Tensor, labels: Tensor) -> bool:
    """Whether all samples of a class weigh the same, and none less than nothing."""
    if not bool((weights >= 0).all()):
        return False
    own = (weights[labels == kind] for kind in torch.unique(labels))
    return all(float(w.max() - w.min()) <= EVEN * float(w.max()) for w in own)


def read_turned(y: Tensor, calls: LossCalls) -> float | None:
    """How much more the right answer is asked for than another, in targets that the loss made.

    `y`: numbers between 0 and 1, for labels or for yes and no; None if they were not made so.
    """
    for t in calls.originals:
        own = None if y is t else _mark(t, y)
        if own is None or not bool(own.any()) or bool(own.all()):
            continue
        right, other = y[own].double(), y[~own].double()
        if max(float(right.max() - right.min()), float(other.max() - other.min())) < EVEN:
            return float(right.mean() - other.mean())
    return None


def _mark(t: Tensor, y: Tensor) -> Tensor | None:
    """Where targets stand for the right answer, by the batch's own; None if they do not fit."""
    if t.shape == y.shape and bool(((t == 0) | (t == 1)).all()):
        return t > 0
    if t.is_floating_point() or y.ndim != t.ndim + 1 or len(t) != len(y) or y.shape[2:] != t.shape[1:]:
        return None
    if int(t.min()) < 0 or int(t.max()) >= y.shape[1]:
        return None
    return torch.nn.functional.one_hot(t.long(), y.shape[1]).bool().movedim(-1, 1)
