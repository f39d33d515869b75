"""The eyes of a watched training whose model is compiled: taps within its graph, put in before it is compiled.

Notable:
- A tap is a forward hook, which torch traces with its module. A look raises a flag; so it costs no second graph
  and none is compiled again. Without a look a tap is a call that leaves at once.
- The map is drawn while torch traces the model: the autograd graph of its trial run has the dominators.
- Graphs that were compiled with taps keep them: taking the hooks off would have everything compiled again. So
  they stay, with the flag down, when the watch is closed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from unvanish.probes import graph
from unvanish.probes.live import taps
from unvanish.probes.live.chart import POSITIONS, SAMPLES, UNITS, Chart, Crossing, draw_chart, list_sites
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.samples import Samples
from unvanish.probes.live.tapped import Tapped
from unvanish.probes.recurrent.profile import Profile

UNSEEN = "activations are not looked at: the model was compiled before the watch came"
_numbers = itertools.count()


class InnerEyes:
    """Looks at a training step from within compiled graphs: `open` before its forward, `close` after its step.

    `places`: the modules with taps; `whole`: whether the whole model is one compiled function; `tied`: see
    `taps`.
    """

    def __init__(
        self, places: Iterable[Tapped], guard: WatchGuard, whole: bool, tied: bool
    ) -> None:
        taps.define_operators()
        self.guard = guard
        self.chart: Chart | None = None
        self.seconds = 0.0  # our own, of the present look
        self.size = 0
        self.compiled = False
        self._places = tuple(places)
        self._rows: list[int] = []  # of the chart: the places that are its sites
        self._samples = Samples({})
        self._met: list[tuple[int, Crossing]] = []  # by the graph that is traced now
        self._trace: Any = None  # which one that is
        self._known: dict[int, Crossing] = {}  # all that any graph met, without their nodes
        self._kept: set[int] = set()  # addresses of the buffers that were written into
        self._reached = False  # whether any tap was compiled, or ran
        self._looks = 0
        number = next(_numbers)
        device = self._places[0].device
        self._flag = torch.zeros((), dtype=torch.bool, device=device)
        self._taps = [
            taps.Tap(self._flag, device, number * taps.STRIDE + i if whole else -1, place.exact, tied)
            for i, place in enumerate(self._places)
        ]
        taps.owners[number] = self
        self._hooks = [
            place.module.register_forward_hook(tap)
            for place, tap in zip(self._places, self._taps, strict=True)
        ]
        self._mark_static()

    def _mark_static(self) -> None:
        """Tell the compiler that the buffers stay where they are, as a CUDA graph needs it."""
        from torch._dynamo import mark_static_address  # the compiler is loaded: the model is compiled

        for tensor in (self._flag, *(t for tap in self._taps for t in (tap.ahead, tap.back))):
            mark_static_address(tensor, guard=False)

    # -- a look

    def open(self) -> None:
        """Raise the flag."""
        started = perf_counter()
        rooms = [tensor.data for tap in self._taps for tensor in (tap.ahead, tap.back)]
        torch._foreach_zero_(rooms)
        self._flag.data.fill_(True)
        taps.raised[self._flag.data_ptr()] = self
        self.seconds = perf_counter() - started

    def close(self) -> None:
        """Lower the flag; harmless when repeated."""
        if taps.raised.pop(self._flag.data_ptr(), None) is None:
            return
        self._flag.data.fill_(False)
        self._looks += 1
        if not self._reached:
            self.guard.note(UNSEEN)
        elif self.chart is None:
            self._draw()

    def remove(self) -> None:
        """Lower the flag for good; hooks that no graph has met come off."""
        self.close()
        if not self._reached:
            while self._hooks:
                self._hooks[-1].remove()
                self._hooks.pop()

    def take(self, x: Tensor, room: Tensor, flag: Tensor) -> None:
        """A graph runs, and comes by a tap while the flag is up."""
        started = perf_counter()
        with torch.no_grad():
            taps.copy_part(x, room, flag)
        self._reached = True
        self.seconds += perf_counter() - started

    def take_profiles(self) -> list[tuple[str, str, Profile]]:
        """None: compiled recurrent layers are not followed."""
        return []

    # -- the map

    def meet(self, place: int, x: Tensor) -> None:
        """A graph is traced, and comes by a tap."""
        if self.chart is not None:
            return
        trace = torch._guards.CompileContext.current_trace_id()
        if trace != self._trace:  # another graph, or this one from its beginning
            self._trace, self._met = trace, []
        self._reached = True
        known = self._places[place]
        shape = tuple(n if isinstance(n, int) else 0 for n in x.shape)
        low = x.dtype == torch.float16
        self._met.append((place, Crossing(known.key, known.family, x.grad_fn, shape, low)))
        self._known[place] = Crossing(known.key, known.family, None, shape, low)

    def _draw(self) -> None:
        """Draw the map, if one graph holds all of the model; else without a depth axis."""
        met, self._met = self._met, []
        places = [place for place, _ in met]
        once = [c for place, c in met if places.count(place) == 1]
        above = graph.walk(once[-1].node) if once and set(places) == set(self._known) else None
        if above is not None and all(c.node in above.index for c in once):
            self._use(draw_chart(once, once[-1].node))
            return
        known = self._known or {i: Crossing(p.key, p.family, None, ()) for i, p in enumerate(self._places)}
        self._use(list_sites([known[i] for i in sorted(known) if places.count(i) < 2]))

    def _use(self, chart: Chart) -> None:
        rows = {place.key: i for i, place in enumerate(self._places)}
        self._rows = [rows[key] for key in chart.slots]
        self._samples = Samples(chart.slots)
        self._met, self._known = [], {}
        self.chart = chart

    # -- what was seen

    @torch.no_grad()
    def statistics(self) -> Tensor | None:
        """The statistics of every site, shape (sites, len(SEEN)), float64; None before the map is drawn."""
        if self.chart is None or not self._rows:
            return None
        ahead = torch.stack([self._taps[i].ahead.data for i in self._rows])
        back = torch.stack([self._taps[i].back.data for i in self._rows])
        sizes = taps.read_sizes(ahead)
        low = torch.tensor([s.low for s in self.chart.slots.values()], dtype=torch.float64)
        came = (taps.read_sizes(back) == sizes).all(1, keepdim=True).double()
        facts = torch.cat([sizes, low.to(sizes.device)[:, None], came], 1)
        shape = (len(self._rows), SAMPLES, POSITIONS, UNITS)
        found = self._samples.reduce(
            ahead[:, : taps.CELLS].view(shape), back[:, : taps.CELLS].view(shape), facts
        )
        return torch.where(sizes[:, 3:] > 0, found, torch.nan)
