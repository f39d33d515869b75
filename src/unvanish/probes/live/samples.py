"""The numbers that a look copies: of every site's activation, of its gradient, of its attention.

Notable: all sites share two buffers on the device, which live for one look; they are reduced together, in
float64, and nothing leaves the device before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unvanish.probes.live.chart import POSITIONS, SAMPLES, UNITS, Key, Slot, rectifies, thin
from unvanish.probes.live.summaries import SEEN, measure_saturation, summarise_backward, summarise_forward

SILENT = 12  # looks in a row without a response make an expert idle
QUIET, LOOKS = 96, 3  # samples, and looks in a row, without a response make a unit dead
MANY = 128  # samples of a look of which it is asked


@dataclass
class Samples:
    """A few evenly spaced numbers of every site; `clear` before each look."""

    slots: Mapping[Key, Slot]
    batch: int | None = None  # samples of the model's first input
    ahead: Tensor | None = None  # (sites, SAMPLES, POSITIONS, UNITS), of activations
    back: Tensor | None = None  # of their gradients
    attention: dict[int, Tensor] = field(default_factory=dict)  # what `sharpness` gives, by row
    loads: dict[int, Tensor] = field(default_factory=dict)  # tokens of each expert, by row of the router
    idle: dict[int, Tensor] = field(default_factory=dict)  # looks in a row without a token, of each expert
    log_z: Tensor | None = None  # of the model's output
    last: int | None = None  # row of the site that stands for the output
    silence: Tensor | None = None  # (2, sites, UNITS): looks and samples in a row on which a unit was silent
    fired: dict[int, tuple[Tensor, int]] = field(default_factory=dict)  # units that fired, samples; by row

    def clear(self) -> None:
        """Forget the last look; the silence of units is counted over looks."""
        self.ahead = self.back = self.log_z = None
        self.attention, self.loads, self.fired = {}, {}, {}

    def take(self, slot: Slot, made: Tensor) -> bool:
        """Copy a part of an activation; False if it has none to copy."""
        part = thin(made.detach(), self.batch)
        if part is None:
            return False
        slot.shape, slot.numel = tuple(part.shape), made.numel()
        slot.low = made.dtype == torch.float16
        slot.part(self._allocate(made.device)).copy_(part)
        if rectifies(slot.key[1]):
            more = thin(made.detach(), self.batch, MANY)
            if more is not None and len(more) > len(part):
                self.fired[slot.row] = (more != 0).flatten(0, -2).any(0), len(more)
        return True

    def take_gradient(self, slot: Slot, gradient: Tensor) -> None:
        """Copy a part of an activation's gradient."""
        part = thin(gradient.detach(), self.batch)
        if part is not None and self.back is not None and tuple(part.shape) == slot.shape:
            slot.part(self.back).copy_(part)
            slot.came = True

    def _allocate(self, device: torch.device) -> Tensor:
        """The buffer of activations; the first site of a look makes it."""
        if self.ahead is None or self.back is None:
            shape = (len(self.slots), SAMPLES, POSITIONS, UNITS)
            self.ahead = torch.zeros(shape, dtype=torch.float32, device=device)
            self.back = torch.zeros_like(self.ahead)
            for slot in self.slots.values():
                slot.came = False
        return self.ahead

    @torch.no_grad()
    def summarise(self) -> Tensor | None:
        """The statistics `SEEN` of every site, shape (sites, len(SEEN)), float64 on the model's device.

        None if this look saw no forward.
        """
        if self.ahead is None or self.back is None:
            return None
        facts = [(*s.sizes, s.numel, s.low, s.came) for s in self.slots.values()]
        return self.reduce(self.ahead, self.back, torch.tensor(facts, dtype=torch.float64))

    @torch.no_grad()
    def reduce(self, ahead_parts: Tensor, back_parts: Tensor, sizes: Tensor) -> Tensor:
        """As `summarise`, of copied parts.

        `sizes`: for each site the samples, positions, units that were copied, numbers in all, whether they
        are float16, whether a gradient came.
        """
        slots, device = list(self.slots.values()), ahead_parts.device
        sizes = sizes.to(device)
        found = torch.full((len(slots), len(SEEN)), math.nan, dtype=torch.float64, device=device)
        ahead, back = ahead_parts.flatten(2), back_parts.flatten(1)
        found[:, :4] = summarise_forward(ahead, sizes)
        found[:, 4:7] = summarise_backward(back, sizes, any(s.low for s in slots))
        found[:, 7] = self._count_dead(ahead_parts, slots, sizes)
        found[:, 8] = measure_saturation(ahead.flatten(1), sizes, slots)
        for row, pair in self.attention.items():
            found[row, 9:12] = pair.to(device)
        if self.log_z is not None and self.last is not None:
            found[self.last, 12] = self.log_z.to(device)
        for row, load in self.loads.items():
            found[row, 13:] = self._summarise_load(row, load).to(device)
        return found

    def _summarise_load(self, row: int, load: Tensor) -> Tensor:
        """load_excess, load_entropy, idle_experts of a router, shape (3,)."""
        before = self.idle.get(row)
        waited = torch.zeros_like(load) if before is None or before.shape != load.shape else before
        self.idle[row] = torch.where(load > 0, 0.0, waited + 1)
        share = load / load.sum().clamp_min(1)
        nats = -torch.where(share > 0, share * share.clamp_min(1e-300).log(), 0.0).sum()
        excess = share.max() * len(load) - 1
        silent = (self.idle[row] >= SILENT).double().mean()
        return torch.stack([excess, nats / math.log(len(load)), silent])

    def _count_dead(self, ahead: Tensor, slots: Sequence[Slot], sizes: Tensor) -> Tensor:
        """Share of a rectifier's units that were silent on the last QUIET samples, of some looks."""
        if self.silence is None or self.silence.device != ahead.device:
            self.silence = torch.zeros(2, len(slots), UNITS, device=ahead.device)
        silent, units = ~ahead.any(2).any(1), sizes[:, 2]
        asked = torch.ones_like(self.silence[:, :, 0])
        asked[1] = sizes[:, 0]
        for row, (fired, samples) in self.fired.items():
            silent[row, : len(fired)], asked[1, row] = ~fired, samples
        self.silence = torch.where(silent, self.silence + asked[:, :, None], 0)
        inside = torch.arange(UNITS, device=ahead.device)[None] < units[:, None]
        dead = (self.silence[0] >= LOOKS) & (self.silence[1] >= QUIET)
        share = (dead & inside).sum(1).double() / units
        able = torch.tensor([rectifies(s.key[1]) for s in slots], device=ahead.device)
        return torch.where(able, share, math.nan)
