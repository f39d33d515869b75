"""Likelihoods that are lowered although no target of the batch enters the loss.

Notable:
- A log-probability that the model returns is a difference of a score and the logsumexp over all of them, or
  what was picked from a log-softmax, below views and sums alone. A density of numbers is not read here.
- Logarithms of a yes here and of a no there, all of them lowered, are a judge's loss with its sign turned.
  One alone is what a generator does in the first form of the game.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unvanish.core.loss_facts import AscentFacts
from unvanish.probes.loss_calls import LossCalls

PASSED = {
    f"{name}Backward{i}"
    for name in ("Squeeze", "Unsqueeze", "View", "Sum", "Gather", "Index", "Select", "Clone", "Alias")
    for i in range(3)
}
PICKED = ("Gather", "Index", "Select")
BOTH = 2  # logarithms, at least
LAST = 10  # nodes from the output on, at most
PLAIN = ("mean", "sum", "neg", "mul", "div")
SHAPES = ("add", "sub", "rsub", "sigmoid", "squeeze", "view", "reshape", "clamp", "getitem")
LOGS = ("log", "log1p", "log_sigmoid", "logsigmoid")
EVEN = 1e-3  # relative: gradients that differ less are those of a mean or a sum


def is_log_probability(t: Tensor) -> bool:
    """Whether a tensor of the output is a log-probability, or the sum of several, for each sample."""
    node: Any = t.grad_fn
    names: list[str] = []
    for _ in range(LAST):
        if node is None:
            return False
        name = type(node).__name__
        edges = [n for n, _ in node.next_functions if n is not None]
        picked = any(kind.startswith(PICKED) for kind in names)
        if name == "LogSoftmaxBackward0":
            return picked
        if name == "SubBackward0" and len(edges) == 2:
            return type(_skip(edges[1])).__name__ == "LogsumexpBackward0"
        if name not in PASSED or len(edges) != 1:
            return False
        names.append(name)
        node = edges[0]
    return False


def _skip(node: Any) -> Any:
    """The first node below views."""
    while type(node).__name__ in PASSED and not type(node).__name__.startswith((*PICKED, "Sum")):
        node = node.next_functions[0][0]
    return node


def find_lowered(root: Tensor, made: list[Tensor], calls: LossCalls) -> list[AscentFacts]:
    """A log-probability of the output that is the whole loss, and that falls with it at every sample."""
    if len(made) != 1 or any(call.kind not in PLAIN for call, _ in calls.made):
        return []
    gradient: Tensor | None = torch.autograd.grad(root, made, retain_graph=True, allow_unused=True)[0]
    if gradient is None or not bool((gradient > 0).all()):
        return []
    if float(gradient.max() - gradient.min()) > EVEN * float(gradient.max()):
        return []
    return [{"kind": "log-probability", "slope": 1.0, "given": True, "source": ""}]


def find_both_lowered(root: Tensor, calls: LossCalls) -> list[AscentFacts]:
    """Logarithms of both answers that make the whole loss, and that all fall with it."""
    logs = [(c, o) for c, o in calls.made if c.kind in LOGS]
    plain = all(c.kind in (*PLAIN, *SHAPES, *LOGS) for c, _ in calls.made)
    if len(logs) < BOTH or not plain or {_asks_for(c.kind, c.result.grad_fn) for c, _ in logs} != {1, -1}:
        return []
    results = [c.result for c, _ in logs]
    gradients = torch.autograd.grad(root, results, retain_graph=True, allow_unused=True)
    if any(g is None or not bool((g >= 0).all()) or not bool((g > 0).any()) for g in gradients):
        return []
    source = calls.lines.get(logs[0][1].order, "")
    return [{"kind": "both answers", "slope": 1.0, "given": True, "source": source}]


def _asks_for(kind: str, node: Any) -> int:
    """1 for the logarithm of a yes, -1 for that of a no: of one less a probability, or of minus a score."""
    below: Any = _skip(node.next_functions[0][0])
    turned = type(below).__name__ in ("NegBackward0", "RsubBackward1", "RsubBackward0")
    return -1 if kind == "log1p" or turned else 1
