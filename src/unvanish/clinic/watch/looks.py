"""A look at one step: opened before its forward, closed after its optimizers' step.

Notable: a look is one block of numbers on the device, all sites together; of this rank alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unvanish.clinic.watch.labels import LabelCount
from unvanish.clinic.watch.watched import Watched
from unvanish.core.trace import Axis, Site
from unvanish.probes.live.compiled import has_compiled_parts, is_compiler_strict
from unvanish.probes.live.eyes import Eyes
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.summaries import SEEN
from unvanish.probes.live.tapped import FUSING, find_compilers, find_places, find_refusal, is_whole
from unvanish.probes.live.updates import part_logs, statistics

if TYPE_CHECKING:  # it loads torch's compiler
    from unvanish.probes.live.inner_eyes import InnerEyes

COMPILED = "activations are not looked at: the model, or a part of it, is compiled"
WAYS = 8  # looks whose gradients' ways are kept
PROFILES = 16  # looks from one time profile of the recurrent layers to the next


class Look:
    """The present look, or the wait for the next one; `after_backward` is called after each backward."""

    def __init__(
        self, watched: Watched, first: int, guard: WatchGuard, after_backward: Callable[..., None]
    ) -> None:
        self.watched, self.guard = watched, guard
        self.labels = LabelCount(watched, guard)
        inside = _look_inside(watched, guard)
        self._unseen = inside if isinstance(inside, str) else ""
        self._inside = None if isinstance(inside, str) else inside
        self.eyes: Eyes | InnerEyes = self._inside or Eyes(
            watched.inner, guard, after_backward if watched.alone else None
        )
        self.next = first  # the step of the next look
        self.open = False  # whether the present step is looked at
        self.ended = False  # whether the watch was closed
        self.ways: list[float] = []  # cosines of the gradients at steps with those after their backward
        self._slopes: list[Tensor] = []  # some of the latter
        self._squares: Tensor | None = None  # of the gradients, before anything clipped them
        self._scale = 1.0  # of these gradients, if they were read before the scaler took it out

    def prepare(self, step: int, looks: int) -> None:
        """Open for the step that begins, if its turn has come; `looks`: made so far."""
        self.open = step >= self.next and not self.ended
        if not self.open:
            return
        self._squares = None
        self.labels.open(step)
        self.watched.parameters.hold()
        if self._inside is not None:
            self._inside.open()
        elif self.eyes.compiled or has_compiled_parts(self.watched.model):
            self.guard.note(self._unseen or COMPILED)
        elif is_compiler_strict():
            self.guard.note("activations are not looked at: the compiler was told not to compile again")
        elif isinstance(self.eyes, Eyes):
            self.eyes.open(profiling=looks % PROFILES == 2)

    def read_again(self) -> None:
        """Other parameters are watched from here on, in the step that is about to be made."""
        self._squares = None
        if self.open:
            self.watched.parameters.hold()

    def measure_after_backward(self) -> None:
        """Read the gradients, which nothing has clipped or unscaled yet."""
        self._squares = self.watched.parameters.squares()
        self._scale = self.watched.loss_scale()
        self._slopes = self.watched.parameters.pick_gradients()

    def measure_before_step(self) -> None:
        """Read the gradients, if the end of the backward was not heard, else compare them with those."""
        if self._squares is None:
            self._squares = self.watched.parameters.squares()
            return
        slopes, self._slopes = self._slopes, []
        now = self.watched.parameters.pick_gradients() if slopes else []
        if [len(s) for s in slopes] == [len(n) for n in now] and now and now[0].device.type == "cpu":
            way = torch.cosine_similarity(torch.cat(slopes), torch.cat(now), dim=0)
            self.ways = [*self.ways[1 - WAYS :], float(way)]

    def close(self) -> tuple[Tensor, Tensor]:
        """The gradients' norm before clipping, and the statistics [site, LIVE], float64, on the device.

        Of shards also their `store.schema.PARTS`.
        """
        self.eyes.close()
        self.labels.close()
        self.labels.batches.note(self.labels.step, self.eyes.rows, self.eyes.count)
        self.eyes.seconds += self.labels.seconds
        squares = self._squares if self._squares is not None else self.watched.parameters.squares()
        scale, self._scale, self._squares = self._scale, 1.0, None
        return self._measure(squares, scale)

    def remove(self) -> None:
        """Detach everything for good."""
        self.ended, self.open = True, False
        self.labels.close()
        self.eyes.remove()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of the network's map, then those of its parameters."""
        chart = self.eyes.chart
        return (chart.sites if chart is not None else ()) + self.watched.parameters.sites

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The depth axis, once the network has been mapped and has one."""
        chart = self.eyes.chart
        return (chart.axis,) if chart is not None and chart.axis is not None else ()

    @property
    def low(self) -> bool:
        """Whether any activation is of float16."""
        chart = self.eyes.chart
        return chart is not None and any(s.low for s in chart.slots.values())

    def _measure(self, squares: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        parameters = self.watched.parameters
        changes = parameters.changes()
        seen = self.eyes.statistics()
        count = len(self.eyes.chart.sites) if self.eyes.chart is not None else 0
        before = squares[:, 0].sum().sqrt() / scale
        moved = statistics(squares, changes, scale)
        if parameters.sharded:
            self._note_unread()
            moved = torch.cat([moved, part_logs(squares, changes)], 1)
        shape = (count + len(moved), len(SEEN) + moved.shape[1])
        found = torch.full(shape, math.nan, dtype=torch.float64, device=moved.device)
        if seen is not None:
            found[:count, : len(SEEN)] = seen.to(found.device)
            found[:count, SEEN.index("backward_log")] -= math.log(self.watched.loss_scale())
        found[count:, len(SEEN) :] = moved
        return before, found

    def _note_unread(self) -> None:
        """Name the gradients that only all ranks together know."""
        names = self.watched.parameters.find_unreadable()
        if names:
            self.guard.note(f"gradients of partial sums are not read: {', '.join(names)}")


def _look_inside(watched: Watched, guard: WatchGuard) -> InnerEyes | str:
    """Eyes within the compiled graphs of a model; why there are none, empty if nothing is compiled."""
    compilers, asked = find_compilers(watched.model), bool(watched.compiled)
    if not (compilers or asked):
        return ""
    if watched.compiled is False:
        return COMPILED
    refusal = find_refusal(watched.inner, compilers, asked)
    if watched.parameters.sharded:
        refusal = "its weights are sharded"
    if refusal:
        return f"{COMPILED}, and {refusal}"
    from unvanish.probes.live import inner_eyes, inner_map

    left = inner_map.find_map(watched.inner)
    if left is None:
        whole = not compilers or is_whole(watched.model)  # it may be compiled later
        free = asked or not any(c.backend in FUSING for c in compilers)
        places = find_places(watched.inner, whole, free)
        if not places:
            return f"{COMPILED}, and none of its modules can be looked at"
        left = inner_map.InnerMap(places, whole, free)
    return inner_eyes.InnerEyes(left, guard)
