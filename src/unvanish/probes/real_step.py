"""A training step as an examination reads it: somebody else's forward, and somebody else's backward.

Notable:
- Nothing runs twice and nothing is put back. Hooks on the nodes of the graph read the gradients as they pass;
  what the nodes have saved is read before the backward, which frees it.
- A re-entrant checkpoint gives its parameters their gradients past the graph: they are read from `.grad`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from unvanish.core.trace import Trace
from unvanish.probes import outputs
from unvanish.probes.backward import Backward, GradientFlow, Hang
from unvanish.probes.passes import ForwardPass, Specimen
from unvanish.probes.record import assemble
from unvanish.probes.recurrent import loops
from unvanish.probes.run_backward import Prospect, Seen, conclude, find_ends, foresee


@dataclass
class LeafGradients:
    """The gradients that arrive at leaves whose `.grad` will not be theirs alone."""

    before: Mapping[str, tuple[Tensor | None, int]]  # `.grad` and its version, before the backward
    kept: dict[str, Tensor] = field(default_factory=dict)
    came: set[str] = field(default_factory=set)

    def watch(self, name: str, alone: bool) -> Callable[[tuple[Tensor | None, ...]], None]:
        """A look at what arrives at a leaf; `alone`: its `.grad` will be that and nothing else."""

        def look(gradients: tuple[Tensor | None, ...]) -> None:
            gradient = gradients[0]
            if gradient is None:
                return
            self.came.add(name)
            if not alone:
                before = self.kept.get(name)
                own = gradient.detach().clone()
                self.kept[name] = own if before is None else before + own

        return look

    def read(self, name: str, leaf: Tensor, placed: bool) -> Tensor | None:
        """The gradient that the backward gave a leaf; None if it gave none."""
        if name in self.kept:
            return self.kept[name]
        gradient, (before, version) = leaf.grad, self.before[name]
        fresh = gradient is not before or (gradient is not None and gradient._version != version)
        if placed:
            return gradient if name in self.came else None
        return gradient if fresh else None


class RealStep:
    """One step between its forward and the end of its backward.

    `hang`: hangs a look up at a node, by what registers it; the handle. `scale`: log2 of the loss scale.
    """

    def __init__(self, specimen: Specimen, forward: ForwardPass, hang: Hang, scale: int) -> None:
        self.specimen, self.scale = specimen, scale
        self.before: Prospect = foresee(specimen, forward)
        plan = self.before.plan
        attempt, watched = specimen.omissions.attempt, forward.watched
        read: Any = attempt(
            "what the loss reads", "", lambda: outputs.outputs(watched, forward.loss, plan.graph), list
        )
        self.forward = replace(forward, read=read)
        held = loops.outputs_to_hold(watched)
        self.backward = Backward(
            plan.graph, (), self.before.watches | set(plan.cuts), held, specimen.omissions, hang
        )
        self.arrivals = LeafGradients(
            {n: (p.grad, 0 if p.grad is None else p.grad._version) for n, p in plan.leaves.items()}
        )
        self.handles = self.backward.listen(scale)
        for name, leaf in plan.leaves.items():
            if plan.graph.place(leaf) is not None:
                alone = leaf.grad is None and not leaf._post_accumulate_grad_hooks
                node = get_gradient_edge(leaf).node
                self.handles.append(hang(node.register_prehook, self.arrivals.watch(name, alone)))

    @property
    def reaches(self) -> bool:
        """Whether the backward begins above a parameter of the model."""
        plan = self.before.plan
        return any(plan.graph.place(leaf) is not None for leaf in plan.leaves.values())

    def remove(self) -> None:
        """Take every look off."""
        while self.handles:
            self.handles.pop().remove()

    def finish(self) -> tuple[Trace, GradientFlow]:
        """The trace of the step, whose backward has ended, and its gradients."""
        self.remove()
        plan, specimen = self.before.plan, self.specimen
        graph = plan.graph
        found = [self.arrivals.read(n, p, graph.place(p) is not None) for n, p in plan.leaves.items()]
        flow = self.backward.conclude(plan.leaves, found)
        nothing: Seen = [], [], frozenset[str](), []
        seen = nothing
        if not all(map(math.isfinite, flow.logs.values())):
            seen = specimen.omissions.attempt(
                "where gradients end",
                "",
                lambda: find_ends(specimen, plan, self.forward, flow, flow),
                lambda: nothing,
            )
        trace = assemble(
            specimen, self.forward, conclude(specimen, self.forward, self.before, flow, seen), {}
        )
        facts: Any = {**trace.facts, "loss": trace.facts["loss"] / 2.0**self.scale}
        return replace(trace, facts=facts), flow


def is_broken(flow: GradientFlow) -> bool:
    """Whether a gradient is not finite."""
    return any(math.isnan(log) or log == math.inf for log in flow.logs.values())
