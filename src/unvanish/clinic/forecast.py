"""`forecast`: the gradient's profile from theory, before data and training, judged by the same rules.

Notable: one forward of a copy on the meta device gives the sites, `theory.predict` the numbers; the result is
a Trace like a measured one. Inputs are taken as independent standard Gaussians.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.clinic import config
from unvanish.clinic.check import folded, ranked, visit
from unvanish.core.diagnosis import Diagnosis
from unvanish.core.facts import TraceFacts
from unvanish.core.trace import Site, Trace
from unvanish.probes import node_sites, sites
from unvanish.probes.backward import GradientFlow
from unvanish.probes.chain import find_chains
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.forward import Operation
from unvanish.probes.passes import BackwardPass, Measured
from unvanish.probes.program.outline import Outline, outline
from unvanish.probes.recurrent.loops import Recurrence
from unvanish.rules import rules
from unvanish.theory.program.follow import Prediction, predict
from unvanish.theory.program.pointwise import of
from unvanish.theory.program.signal import Signal
from unvanish.theory.program.steps import Step


def _drawn(model: nn.Module, batch: Any, hollow: bool) -> Outline:
    """The outline; of two samples of noise where the model needs numbers to run and has some."""
    try:
        return outline(model, batch, hollow=hollow)
    except ModelCrash:
        if not hollow or any(p.is_meta for p in model.parameters()):
            raise
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return outline(model, _noise(batch), hollow=False)


def _noise(batch: Any) -> Any:
    """The batch with standard normal numbers where it has none."""
    if isinstance(batch, Tensor):
        return torch.randn(batch.shape) if batch.is_meta else batch
    if isinstance(batch, Mapping):
        return {k: _noise(v) for k, v in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(_noise(v) for v in batch)
    return batch


BY_NUMBERS = ("ACT003", "GRF", "INI003", "INP", "NUM", "OPT", "OUT", "PRC")  # rules no theory can judge


def forecast(
    model: Any,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    batch: Any = None,
    batch_size: int = 8,
    power: float = 1.0,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
) -> Diagnosis:
    """What `check` would say, predicted: no data, no training; the model is not touched.

    `input_size`: the shape of one sample, (3, 224, 224), or several of them for a model with several inputs;
    or
    `batch`: any batch, of which only the shapes are used (so for models that read whole numbers). `power`:
    mean square of the inputs. CheckError for a call that does not fit together, ModelCrash where the model
    raises on tensors without data.
    """
    started = time.perf_counter()
    if (input_size is None) == (batch is None):
        raise CheckError("give either input_size, the shape of one sample, or a batch")
    chosen = frozenset(config.selected(rules(), select, ignore))
    checked = config.checked_settings(settings or {})
    given = batch if batch is not None else _made(input_size, batch_size)
    trace = predicted(model, given, power=power)
    seen = {code for code in chosen if not code.startswith(BY_NUMBERS)}
    rounds = visit(trace, seen, checked)
    why = "needs a measurement, which `check` makes"
    skipped = tuple(replace(v, reason=why) if v.code in chosen else v for v in rounds.skipped)
    return Diagnosis(
        folded(ranked(rounds.findings)),
        trace,
        rounds.passed,
        rounds.not_applicable,
        skipped,
        name or type(model).__name__,
        time.perf_counter() - started,
    )


def _made(input_size: Any, batch_size: int) -> Any:
    """A batch without numbers, of the shapes asked for."""
    try:
        sizes = [tuple(map(int, input_size))]
    except TypeError:
        sizes = [tuple(map(int, size)) for size in input_size]
    if not all(all(n > 0 for n in size) for size in sizes):
        raise CheckError(f"input_size is {input_size!r}; give positive whole numbers, (3, 224, 224)")
    made = [torch.empty((batch_size, *size), device="meta") for size in sizes]
    return made[0] if len(made) == 1 else (tuple(made),)


def predicted(
    model: nn.Module, batch: Any, *, power: float = 1.0, likeness: float = 0.0, hollow: bool = True
) -> Trace:
    """The predicted Trace of a model on a batch of such shapes; `hollow` as in `outline`."""
    drawn = _drawn(model, batch, hollow)
    said = predict(drawn.program, power, likeness)
    return Assembly(model, drawn, said).trace()


@dataclass(frozen=True)
class Assembly:
    """An outline and a prediction, put together to a Trace."""

    model: nn.Module
    outline: Outline
    said: Prediction

    def trace(self) -> Trace:
        """Sites as a measured trace has them, with predicted statistics."""
        drawn = self.outline
        flow = self._flow()
        axes = find_chains(drawn.graph, drawn.call, drawn.watched)
        steps = {step.outputs[0]: step for step in drawn.program.steps if step.outputs}
        for operation in drawn.watched.operations:
            number = drawn.numbers.get((operation.nodes[0], 0))
            if number is not None and number in self.said.signals:
                operation.stats.update(self._stats(operation, steps.get(number), self.said.signals[number]))
        rows = [self._assume(site, stats) for site, stats in sites.inputs(drawn.call, flow)]
        nodes, found, _ = node_sites.nodes(drawn.call, drawn.watched, BackwardPass(drawn.graph, axes, flow))
        rows += nodes + sites.steps(self._memories()) + [_end()]
        return sites.assemble(rows, found, self._facts())

    def _assume(self, site: Site, stats: dict[str, float]) -> Measured:
        """An input with the facts and statistics that are taken for granted."""
        number = self.outline.inputs.get(site.path)
        if number is None:
            return site, stats
        signal = self.said.signals[number]
        rms, batch = math.sqrt(signal.q), self.outline.program.batch
        stats |= {"forward_rms": rms, "cosine": signal.samples}
        stats["spread"] = math.sqrt((1 - signal.samples) * (1 - 1 / max(2, batch)))
        return replace(site, facts={**site.facts, "mean": 0.0, "std": rms}), stats

    def _flow(self) -> GradientFlow:
        """The predicted logs at every node of the graph, as a measured backward gives them."""
        drawn, flow = self.outline, GradientFlow()
        offset = math.log(drawn.program.batch)
        parts: dict[int, dict[int, float]] = {}
        for (node, output), number in drawn.numbers.items():
            place = None if isinstance(node, int) else drawn.graph.index.get(node)
            pull = self.said.pulls.get(number)
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
        for name, number in drawn.inputs.items():
            if number in self.said.pulls:
                flow.logs[f"\0{name}"] = 0.5 * (self.said.pulls[number].log + offset)
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
            read, before = of(step), self.said.signals.get(step.inputs[0], Signal())
            found["slope_sq"] = float(np.mean(read.read("slope", before.power)))
            if step.facts.get("peak"):
                found["saturated"] = float(np.mean(read.read("saturated", before.power)))
            found["dead"] = 0.0
        return found

    def _memories(self) -> list[Recurrence]:
        """The steps of fused recurrent layers, from the last layer down."""
        found = []
        for step in self.outline.program.steps:
            memories = self.said.memories.get(step.outputs[0], []) if step.outputs else []
            for layer, memory in enumerate(memories):
                label = step.path or "(model)"
                name = f"{label}.l{layer}" if len(memories) > 1 else label
                kind = step.facts["cells"][layer].kind
                found.append(Recurrence(name, step.path, kind, False, memory.log, memory.carry))
        return found

    def _facts(self) -> TraceFacts:
        some = next(self.model.parameters(), None)
        unknown = ", ".join(self.said.unknown)
        beyond = [f"taken for identities, as theory does not know them: {unknown}"] if unknown else []
        return {
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


def _end() -> Measured:
    return Site.output("loss", 0, {"value": 0.0}), {}
