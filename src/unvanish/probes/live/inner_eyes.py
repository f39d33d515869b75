"""The eyes of a watched training whose model is compiled: they look through taps in its graphs.

Notable: a look raises a flag. So it costs no second graph, and nothing is compiled again; without a look a
tap is a call that leaves at once.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor

from unvanish.probes.live import taps
from unvanish.probes.live.chart import POSITIONS, SAMPLES, UNITS, Chart
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.inner_map import InnerMap
from unvanish.probes.live.samples import Samples
from unvanish.probes.recurrent.profile import Profile

UNSEEN = (
    "activations are not looked at: the model was compiled before the watch came, or computes in half "
    "precision (`watch(..., compiled=True)` looks into that too)"
)


class InnerEyes:
    """Looks at a step from within compiled graphs: `open` before its forward, `close` after its step."""

    def __init__(self, inner: InnerMap, guard: WatchGuard) -> None:
        self.guard = guard
        self.seconds = 0.0  # our own, of the present look
        self.size = self.count = 0  # numbers of a sample, and samples: not known
        self.rows: Tensor | None = None  # nor what they are
        self.compiled = False
        self._map = inner
        self._samples: Samples | None = None

    @property
    def chart(self) -> Chart | None:
        """The sites, once they are known."""
        return self._map.chart

    def open(self) -> None:
        """Raise the flag."""
        started = perf_counter()
        rooms = [tensor.data for tap in self._map.taps for tensor in (tap.ahead, tap.back)]
        torch._foreach_zero_(rooms)
        flag = self._map.flag
        flag.data.fill_(True)
        taps.raised[flag.data_ptr()] = self
        self.seconds = perf_counter() - started

    def close(self) -> None:
        """Lower the flag; harmless when repeated."""
        flag = self._map.flag
        if taps.raised.get(flag.data_ptr()) is not self:
            return
        del taps.raised[flag.data_ptr()]
        flag.data.fill_(False)
        if self._map.reached:
            self._map.draw()
        else:
            self.guard.note(UNSEEN)

    def remove(self) -> None:
        """Look no more; hooks that no graph has met come off."""
        self.close()
        self._map.remove()

    def take(self, x: Tensor, room: Tensor, flag: Tensor) -> None:
        """A graph runs, and comes by a tap while the flag is up."""
        started = perf_counter()
        self._map.reached = True
        with torch.no_grad():
            taps.copy_part(x, room, flag)
        self.seconds += perf_counter() - started

    def take_profiles(self) -> list[tuple[str, str, Profile]]:
        """None: recurrent layers are not compiled."""
        return []

    @torch.no_grad()
    def statistics(self) -> Tensor | None:
        """The statistics of every site, shape (sites, len(SEEN)), float64; None if there is none yet."""
        chart, rows = self.chart, self._map.rows
        if chart is None or not rows:
            return None
        if self._samples is None:
            self._samples = Samples(chart.slots)
        ahead = torch.stack([self._map.taps[i].ahead.data for i in rows])
        back = torch.stack([self._map.taps[i].back.data for i in rows])
        sizes = taps.read_sizes(ahead)
        low = torch.tensor([s.low for s in chart.slots.values()], dtype=torch.float64)
        came = (taps.read_sizes(back) == sizes).all(1, keepdim=True).double()
        facts = torch.cat([sizes, low.to(sizes.device)[:, None], came], 1)
        shape = (len(rows), SAMPLES, POSITIONS, UNITS)
        ahead, back = (parts[:, : taps.CELLS].view(shape) for parts in (ahead, back))
        return torch.where(sizes[:, 3:] > 0, self._samples.reduce(ahead, back, facts), torch.nan)
