"""The layers of a network as its trace shows them, in order, with what each reads and what follows it.

Notable: it sees no modules, only what ran; parameters have the names that the model gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unvanish.core.facts import SiteFacts
from unvanish.core.trace import Site, Trace

NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "norm")


@dataclass(frozen=True)
class Layer:
    """One linear or convolutional layer: its site, its parameters, and the function that follows it."""

    site: int
    label: str
    module: str
    kind: str
    weight: str
    bias: str
    fan_in: int
    fan_out: int
    order: int
    source: str  # the kind of the activation it reads, "norm" after a normalisation, else ""
    activation: str  # the kind of the next activation, "" if there is none before the next layer
    normalised: bool  # whether a normalisation comes before that activation
    reads: float  # root mean square of what it reads if that is the model's input, else NaN
    trainable: bool
    computed: bool  # whether its module computes the weight from others (`torch.nn.utils.parametrize`)
    head: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its weight and bias."""
        return tuple(n for n in (self.weight, self.bias) if n)


class Anatomy:
    """The layers, activations, normalisations, sums and attentions of a trace, in the order they ran."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @cached_property
    def nodes(self) -> list[int]:
        """Sites of operations, in the order they ran."""
        found = [i for i in self.trace.where("node") if self.trace.sites[i].order >= 0]
        return sorted(found, key=lambda i: self.trace.sites[i].order)

    def sites(self, *families: str) -> list[int]:
        """Operations of some families, in order."""
        return [i for i in self.nodes if self.trace.sites[i].family in families]

    def site(self, i: int) -> Site:
        """The site of an index."""
        return self.trace.sites[i]

    @cached_property
    def layers(self) -> list[Layer]:
        """Layers whose weight is a parameter, called once (or sharing it); the last is the head."""
        found: list[Layer] = []
        seen: set[str] = set()
        for place, i in enumerate(self.nodes):
            facts = self.site(i).facts
            weight = facts.get("weight") or _computed_weight(facts)
            if self.site(i).family != "layer" or not weight or weight in seen or "fan_in" not in facts:
                continue
            seen.add(weight)
            found.append(self._layer(place, i, weight))
        if found:
            found[-1] = Layer(
                **{**vars(found[-1]), "head": not found[-1].activation and self._last(found[-1])}
            )
        return found

    def _last(self, layer: Layer) -> bool:
        """Whether nothing with parameters runs after a layer."""
        after = [i for i in self.nodes if self.site(i).order > layer.order]
        return not any(self.site(i).family in ("layer", "norm", "recurrent") for i in after)

    def _layer(self, place: int, i: int, weight: str) -> Layer:
        site = self.site(i)
        named = tuple(site.facts.get("parameters", ()))
        stem = weight.rpartition(".")[0]
        bias = next((n for n in named if n != weight and "bias" in n.rpartition(".")[2]), "")
        activation, normalised = "", False
        for j in self.nodes[place + 1 :]:
            family = self.site(j).family
            if family == "activation":
                activation = self.site(j).kind
                break
            if family in ("layer", "recurrent", "attention"):
                break
            normalised |= family == "norm"
        first = not any(self.site(j).family in ("layer", "norm") for j in self.nodes[:place])
        return Layer(
            i,
            site.label,
            stem,
            site.kind,
            weight,
            bias,
            int(site.facts["fan_in"]),
            int(site.facts["fan_out"]),
            int(site.order),
            self._source(place),
            activation,
            normalised,
            self._input_rms(place) if first else math.nan,
            not site.facts.get("frozen", False),
            weight not in named,
        )

    def _source(self, place: int) -> str:
        for j in reversed(self.nodes[:place]):
            family = self.site(j).family
            if family == "activation":
                return self.site(j).kind
            if family in ("norm", "layer", "recurrent", "attention", "embedding"):
                return "norm" if family == "norm" else ""
        return ""

    def _input_rms(self, place: int) -> float:
        """Root mean square of what the first layer reads: an operation's output, else the model's input."""
        for j in reversed(self.nodes[:place]):
            if self.site(j).family in ("embedding", "activation"):
                return self.trace.value(j, "forward_rms")
        for j in self.trace.where("input"):
            facts = self.site(j).facts
            if facts.get("floating"):
                return math.hypot(facts.get("mean", 0.0), facts.get("std", 1.0))
        return math.nan

    def before(self, labels: Iterable[str], count: int = 1) -> list[Layer]:
        """The layers that feed the operations with these labels, or that have these labels or parameters."""
        wanted = set(labels)
        chosen: dict[str, Layer] = {}
        for layer in self.layers:
            if {layer.label, layer.module, layer.weight, layer.bias} & wanted:
                chosen[layer.weight] = layer
        for i in self.nodes:
            if self.site(i).label in wanted and self.site(i).family != "layer":
                order = self.site(i).order
                fed = [x for x in self.layers if x.order < order][-count:]
                chosen |= {x.weight: x for x in fed}
        return sorted(chosen.values(), key=lambda x: x.order)

    def on_axis(self) -> list[Layer]:
        """The layers on the main depth axis except the output layer; every layer if there is no axis."""
        axis = self.trace.depth()
        if axis is None:
            return [x for x in self.layers if not x.head]
        rows = set(axis.sites)
        return [x for x in self.layers if x.site in rows and not x.head]

    def branch_ends(self) -> list[tuple[int, Site]]:
        """(sum, the last layer or normalisation of the branch it adds), for every residual sum."""
        found = []
        start = -1
        for i in self.sites("add"):
            order = self.site(i).order
            inside = [
                j
                for j in self.sites("layer", "norm", "attention")
                if start < self.site(j).order < order and self.site(j).facts.get("parameters")
            ]
            if self._residual(i) and inside:
                found.append((i, self.site(inside[-1])))
            start = order
        return found

    def _residual(self, i: int) -> bool:
        facts = self.site(i).facts
        return bool(facts.get("row_residual") or facts.get("cut"))


def depth_of(trace: Trace) -> int:
    """How many layers the gradient crosses."""
    return max(1, len(Anatomy(trace).on_axis()))


def round_digits(value: Any) -> Any:
    """A number rounded to 6 digits, to be read."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _computed_weight(facts: SiteFacts) -> str:
    """A name for a weight that the forward computes, of a layer whose bias is a parameter."""
    return f"{facts.get('module')}.weight".lstrip(".") if facts.get("parameters") else ""
