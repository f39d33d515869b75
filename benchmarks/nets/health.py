"""When a net counts as healthy: limits on the generator's own measurements, tighter than any alarm."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.nets.activations import CENTRED, SQUASHING
from benchmarks.nets.net import Net
from benchmarks.nets.reading import Reading

RATIO = 3.0  # nats, over the depth or over time: what still trains
SICK = 6.0  # nats: what fails


def ailments(net: Net, reading: Reading) -> str:
    """The first thing that is wrong with a net, or ""."""
    return next((what for what in symptoms(net, reading) if what.split()[0] not in net.tolerate), "")


def symptoms(net: Net, reading: Reading) -> Iterator[str]:
    """Everything that is wrong with a net; the first word is what `Net.tolerate` may name."""
    if not reading.finite:
        yield "finite"
        return
    if max(abs(reading.ratio), reading.swing - 0.5) > RATIO:
        yield f"ratio {reading.ratio:.1f}"
    if abs(reading.through_time) > RATIO:
        yield f"time {reading.through_time:.1f}"
    if reading.missing:
        yield f"missing {sorted(reading.missing)[0]}"
    if reading.zero:
        yield f"zero {sorted(reading.zero)[0]}"
    yield from states(net, reading)
    yield from heads(net, reading)


def states(net: Net, reading: Reading) -> Iterator[str]:
    """What is wrong with the hidden states and the units."""
    if min(reading.spread, default=1.0) < 0.03:
        yield f"spread {min(reading.spread):.3f}"
    if min(reading.rms, default=1.0) < 0.02 or max(reading.rms, default=1.0) > 30:
        yield f"rms {min(reading.rms):.3f}..{max(reading.rms):.3f}"
    if net.facts.get("activation") in {*SQUASHING, *CENTRED} and max(reading.saturated, default=0.0) > 0.3:
        yield f"saturated {max(reading.saturated):.2f}"
    if max(reading.dead, default=0.0) > 0.45 and max(reading.cosine, default=0.0) < 0.9:
        yield f"dead {max(reading.dead):.2f}"


def heads(net: Net, reading: Reading) -> Iterator[str]:
    """What is wrong with the attention heads and the output."""
    if min(reading.entropy, default=1.0) < 0.35 or max(reading.logit, default=0.0) > 30:
        yield f"attention {min(reading.entropy):.2f}"
    if min(reading.starvation, default=1.0) < 0.01 or max(reading.tokens, default=0.0) > 0.98:
        yield f"starvation {min(reading.starvation):.1e}"
    if reading.output > 15:
        yield f"output {reading.output:.1f}"
