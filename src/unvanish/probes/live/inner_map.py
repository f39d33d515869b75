"""The taps of a compiled model, and the map of its sites, which is drawn while torch traces it.

Notable:
- The trial run of torch's compiler has an autograd graph: its dominators are the depth axis.
- Graphs that were compiled with taps keep them: taking the hooks off would have everything compiled again. So
  they outlive their watch, with the flag down; the next one of the same model finds them there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes import graph
from unvanish.probes.live import taps
from unvanish.probes.live.chart import Chart, Crossing, draw_chart, list_sites
from unvanish.probes.live.tapped import Tapped

_numbers = itertools.count()


class InnerMap:
    """Taps at these places; `whole`: the whole model is compiled, not parts; `free`: see `taps`.

    `chart`: the sites, once they are known; `rows`: the taps that are its sites; `reached`: whether any tap
    was compiled, or ran.
    """

    def __init__(self, places: Sequence[Tapped], whole: bool, free: bool) -> None:
        taps.define_operators()
        self.chart: Chart | None = None
        self.rows: list[int] = []
        self.reached = False
        self._places = tuple(places)
        self._met: list[tuple[int, Crossing]] = []  # by the graph that is traced now
        self._trace: Any = None  # which one that is
        self._known: dict[int, Crossing] = {}  # all that any graph met, without their nodes
        number, device = next(_numbers), self._places[0].device
        self.flag = torch.zeros((), dtype=torch.bool, device=device)
        self.taps = [
            taps.Tap(self, number * taps.STRIDE + i if whole else -1, free) for i in range(len(self._places))
        ]
        self._hooks = [
            place.module.register_forward_hook(tap)
            for place, tap in zip(self._places, self.taps, strict=True)
        ]
        taps.maps[number] = self
        for tensor in (self.flag, *(t for tap in self.taps for t in (tap.ahead, tap.back))):
            torch._dynamo.mark_static_address(tensor, guard=False)  # a CUDA graph needs to know

    def remove(self) -> None:
        """Take the hooks off, if no graph has met them."""
        while self._hooks and not self.reached:
            self._hooks[-1].remove()
            self._hooks.pop()

    def meet(self, place: int, x: Tensor) -> None:
        """A graph is traced, and comes by a tap."""
        if self.chart is not None:
            return
        trace = torch._guards.CompileContext.current_trace_id()
        if trace != self._trace:  # another graph, or this one from its beginning
            self._trace, self._met = trace, []
        self.reached = True
        known = self._places[place]
        shape = tuple(n if isinstance(n, int) else 0 for n in x.shape)
        low = x.dtype == torch.float16
        self._met.append((place, Crossing(known.key, known.family, x.grad_fn, shape, low)))
        self._known[place] = Crossing(known.key, known.family, None, shape, low)

    def draw(self) -> None:
        """Draw the map, with a depth axis if one graph held the whole model; harmless when repeated."""
        if self.chart is not None:
            return
        met, self._met = self._met, []
        above = (
            graph.walk(met[-1][1].node).index if met else {}
        )  # of the last trial run, if there were several
        places = [place for place, c in met if c.node in above]
        once = [c for place, c in met if c.node in above and places.count(place) == 1]
        if once and set(places) == set(self._known):
            self.chart = draw_chart(once, met[-1][1].node)
        else:
            known = self._known or {
                i: Crossing(p.key, p.family, None, ()) for i, p in enumerate(self._places)
            }
            self.chart = list_sites([known[i] for i in sorted(known) if places.count(i) < 2])
        rows = {place.key: i for i, place in enumerate(self._places)}
        self.rows = [rows[key] for key in self.chart.slots]
        self._known = {}


def find_map(model: nn.Module) -> InnerMap | None:
    """The map whose taps an earlier watch left in a model's graphs."""
    hooks = (hook for module in model.modules() for hook in module._forward_hooks.values())
    owners = (hook.owner for hook in hooks if isinstance(hook, taps.Tap))
    return next((owner for owner in owners if isinstance(owner, InnerMap)), None)
