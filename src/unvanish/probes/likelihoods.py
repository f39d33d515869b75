"""Log-probabilities that the model itself returns, one for each sample: of a choice, or a whole sequence.

Notable: a difference of a score and the logsumexp over all of them, or what was picked from a log-softmax,
below views and sums alone. What follows from it, a density of numbers, is not read here.
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
LAST = 10  # nodes from the output on, at most
PLAIN = ("mean", "sum", "neg", "mul", "div")
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
