"""A predicted Trace: the sites of a model's outline with the statistics that theory gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from unvanish.core.facts import TraceFacts
from unvanish.core.trace import Site, Trace
from unvanish.probes import node_sites, sites
from unvanish.probes.backward import GradientFlow
from unvanish.probes.chain import find_chains
from unvanish.probes.events import Operation
from unvanish.probes.passes import BackwardPass, Measured
from unvanish.probes.program.outline import Outline
from unvanish.probes.recurrent.loops import Recurrence
from unvanish.theory.program.follow import MeanFieldProfile
from unvanish.theory.program.pointwise import table_of
from unvanish.theory.program.signal import Signal
from unvanish.theory.program.steps import Step


@dataclass(frozen=True)
class Assembly:
    """An outline of a model and the prediction for it, which make a Trace."""

    model: nn.Module
    outline: Outline
    prediction: MeanFieldProfile

    def trace(self) -> Trace:
        """Sites as a measured trace has them, with predicted statistics."""
        outline, signals, flow = self.outline, self.prediction.signals, self._flow()
        axes = find_chains(outline.graph, outline.call, outline.watched)
        steps = {step.outputs[0]: step for step in outline.program.steps if step.outputs}
        for operation in outline.watched.operations:
            number = outline.numbers.get((operation.nodes[0], 0))
            if number is not None and number in signals:
                operation.stats.update(self._stats(operation, steps.get(number), signals[number]))
        entered = sites.inputs(outline.call, flow, outline.watched.omissions)
        rows = [self._assume(site, stats) for site, stats in entered]
        backward = BackwardPass(outline.graph, axes, flow)
        nodes, found, _ = node_sites.nodes(outline.call, outline.watched, backward)
        rows += nodes + sites.steps(self._memories()) + [_end()]
        return sites.assemble(rows, found, self._facts())

    def _assume(self, site: Site, stats: dict[str, float]) -> Measured:
        """An input with the facts and statistics that are taken for granted."""
        number = self.outline.inputs.get(site.path)
        if number is None:
            return site, stats
        signal = self.prediction.signals[number]
        rms, batch = math.sqrt(signal.q), self.outline.program.batch
        stats |= {"forward_rms": rms, "cosine": signal.samples}
        stats["spread"] = math.sqrt((1 - signal.samples) * (1 - 1 / max(2, batch)))
        return replace(site, facts={**site.facts, "mean": 0.0, "std": rms}), stats

    def _flow(self) -> GradientFlow:
        """The predicted logs at every node of the graph, as a measured backward gives them."""
        outline, flow = self.outline, GradientFlow()
        offset = math.log(outline.program.batch)
        parts: dict[int, dict[int, float]] = {}
        for (node, output), number in outline.numbers.items():
            place = None if isinstance(node, int) else outline.graph.index.get(node)
            pull = self.prediction.pulls.get(number)
            if place is not None and pull is not None:
                parts.setdefault(place, {})[output] = 0.5 * (pull.log + offset)
        for place, own in parts.items():
            flow.parts[place] = tuple(own.get(k, -math.inf) for k in range(max(own) + 1))
            top = max(own.values())
            flow.log[place] = (
                top + 0.5 * math.log(sum(math.exp(2 * (v - top)) for v in own.values()))
                if math.isfinite(top)
                else top
            )
        for name, number in outline.inputs.items():
            if number in self.prediction.pulls:
                flow.logs[f"\0{name}"] = 0.5 * (self.prediction.pulls[number].log + offset)
        return flow

    def _stats(self, operation: Operation, step: Step | None, signal: Signal) -> dict[str, float]:
        samples = min(1.0, max(-1.0, signal.samples))
        found = {"forward_rms": math.sqrt(max(signal.q, 0.0)), "cosine": samples}
        batch = self.outline.program.batch
        found["spread"] = math.sqrt(max(0.0, (1 - samples) * (1 - 1 / max(2, batch))))
        shape = operation.facts.get("shape", ())
        if len(shape) == 3 and operation.family in ("norm", "add", "layer"):
            found["token_cosine"] = min(1.0, max(-1.0, signal.positions))
        if operation.family == "activation" and step is not None and step.inputs:
            read, before = table_of(step), self.prediction.signals.get(step.inputs[0], Signal())
            found["slope_sq"] = float(np.mean(read.read("slope", before.power)))
            if step.facts.get("peak"):
                found["saturated"] = float(np.mean(read.read("saturated", before.power)))
            found["dead"] = 0.0
        return found

    def _memories(self) -> list[Recurrence]:
        """The steps of fused recurrent layers, from the last layer down."""
        found = []
        for step in self.outline.program.steps:
            memories = self.prediction.memories.get(step.outputs[0], []) if step.outputs else []
            for layer, memory in enumerate(memories):
                label = step.path or "(model)"
                name = f"{label}.l{layer}" if len(memories) > 1 else label
                kind = step.facts["cells"][layer].kind
                found.append(Recurrence(name, step.path, kind, False, memory.log, memory.carry))
        return found

    def _facts(self) -> TraceFacts:
        some = next(self.model.parameters(), None)
        unknown = ", ".join(self.prediction.unknown)
        beyond = [f"taken for identities, as theory does not know them: {unknown}"] if unknown else []
        facts: TraceFacts = {
            "predicted": True,
            "loss": 0.0,
            "loss_kind": "",
            "objective": "random cotangent",
            "batch_size": self.outline.program.batch,
            "dtype": "float32" if some is None else str(some.dtype).removeprefix("torch."),
            "dtypes": (),
            "device": "none",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "training": self.model.training,
            "torch": str(torch.__version__),
            "graph_cuts": [],
            "assumptions": [
                "predicted from theory: independent Gaussian inputs, a random cotangent at the output",
                *beyond,
            ],
            "loss_overflow": False,
        }
        if left_out := self.outline.watched.omissions.sentences():
            facts["unmeasured"] = left_out
        return facts


def _end() -> Measured:
    return Site.output("loss", 0, {"value": 0.0}), {}
