"""`sample(seed)`: one network, the same for the same seed, drawn again until it is what it is meant to be.

Notable:
- Seeds below 1,000,000 are the development split, seeds from there on the test split; in each, the first
  half million are sick (their code follows from the seed) and the rest healthy.
- A sick net counts only where the fault's symptom is measured in float64 (in the model's own dtype for faults
  of the number format) and the same net without the plant is free of it and of every other ailment; a healthy
  net only where `health.ailments` finds nothing, and the optimizer that comes with it makes its first step
  (`first_step`). Else it is drawn again from a derived seed.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.nets import healthy, hosts
from benchmarks.nets.draw import Draw, seeded
from benchmarks.nets.faults import PLANTS
from benchmarks.nets.first_step import find_stumble
from benchmarks.nets.health import ailments
from benchmarks.nets.losses import Task
from benchmarks.nets.measure import read
from benchmarks.nets.net import Net, Redraw, Sample
from benchmarks.nets.operations import WithLoss
from benchmarks.nets.reading import Reading

CODES = tuple(PLANTS)
SPLITS = {"dev": 0, "test": 1_000_000}
HEALTHY_FROM = 500_000
ATTEMPTS = 60
BARE = {"cross-entropy": nn.CrossEntropyLoss, "mse": nn.MSELoss, "bce": nn.BCEWithLogitsLoss}
KEEP_FORM = ("PRC001", "PRC002", "OPT004")


def seeds(split: str, sick: int, healthy: int) -> tuple[int, ...]:
    """The seeds of a split: the sick nets, then the healthy ones."""
    base = SPLITS[split]
    return tuple(range(base, base + sick)) + tuple(range(base + HEALTHY_FROM, base + HEALTHY_FROM + healthy))


def fault_of(seed: int) -> str | None:
    """The code planted at this seed, or None for a healthy net."""
    place = seed % 1_000_000
    return CODES[place % len(CODES)] if place < HEALTHY_FROM else None


def sample(seed: int) -> Sample:
    """The network of a seed; RuntimeError when no draw out of many became what it should be."""
    fault, reasons = fault_of(seed), Counter[str]()
    for attempt in range(ATTEMPTS):
        try:
            with seeded(f"{seed}/{attempt}") as draw:
                net = sick(draw, fault) if fault else well(draw, seed)
                found = finish(draw, seed, fault, net, reasons)
                if not fault and (stumble := find_stumble(found)):
                    raise Redraw(stumble)
                return found
        except Redraw as reason:
            reasons[str(reason)] += 1
    raise RuntimeError(f"seed {seed}: no {fault or 'healthy'} net in {ATTEMPTS} draws: {dict(reasons)}")


def sick(draw: Draw, fault: str) -> Net:
    """A net with this fault, measured; raises Redraw."""
    plant = PLANTS[fault](draw)
    seen, without = measured(plant.sick, plant.native), measured(plant.well, plant.native)
    amiss = plant.symptom(seen, without) or ailments(plant.well, without)
    if amiss:
        raise Redraw(f"{fault}: {amiss.split()[0] if amiss[-1].isdigit() else amiss}")
    return plant.sick.but(facts={"measured": headline(seen)})


def well(draw: Draw, seed: int) -> Net:
    """A healthy net by the recipe of this seed, measured; raises Redraw."""
    name = healthy.ORDER[(seed * 29) % len(healthy.ORDER)]
    net = healthy.BY_NAME[name](draw)
    seen = measured(net)
    amiss = ailments(net, seen)
    if amiss:
        raise Redraw(f"{name}: {amiss.split()[0]}")
    return net.but(facts={"recipe": name, "measured": headline(seen)})


def measured(net: Net, native: bool = False) -> Reading:
    """`read`, with autograd's complaint about an operation edited in place turned into a redraw."""
    try:
        return read(net, native)
    except RuntimeError as error:
        if "inplace operation" in str(error):
            raise Redraw("in-place clash") from None
        raise


def headline(seen: Reading) -> dict[str, float]:
    """The few numbers that go into a description."""
    return {"ratio": round(seen.ratio, 2), "time": round(seen.through_time, 2), "loss": seen.loss}


def finish(draw: Draw, seed: int, fault: str | None, net: Net, reasons: Counter[str]) -> Sample:
    """The net as a user would hand it over: at times with an optimizer or its own `.loss`."""
    model, batch, loss, optimizer = net.model, net.batch, net.loss, net.optimizer
    model.zero_grad(set_to_none=True)
    if optimizer is None and draw.chance(0.35) and not is_sparse(model):
        optimizer = hosts.optimizer(draw, [p for p in model.parameters() if p.requires_grad])
    if bare(loss, batch) and draw.chance(0.5):
        loss = BARE[loss.kind](reduction=loss.reduction)
    elif isinstance(loss, Task) and draw.chance(0.08) and fault not in KEEP_FORM:
        model, batch, loss = WithLoss(model, loss), {"x": batch[0], "y": batch[1]}, None
    form = "own loss" if loss is None else type(loss).__name__
    facts = {**net.facts, "loss": task_facts(net.loss), "form": form, "redraws": dict(reasons)}
    return Sample(seed, net.family, fault, model, batch, loss, optimizer, facts)


def bare(loss: Any, batch: Any) -> bool:
    """True where torch's own loss module says the same."""
    if not isinstance(loss, Task) or loss.scale != 1.0 or loss.before or not isinstance(batch, tuple):
        return False
    half = batch[0].dtype in (torch.float16, torch.bfloat16)
    return not half and (loss.kind != "cross-entropy" or batch[1].ndim == 1)


def is_sparse(model: nn.Module) -> bool:
    """True where some gradients will be sparse, which not every optimizer takes."""
    return any(getattr(module, "sparse", False) for module in model.modules())


def task_facts(loss: Any) -> dict[str, Any]:
    """Kind, reduction and scale of a loss."""
    names = ("kind", "reduction", "scale", "before", "weight", "empty")
    return {name: getattr(loss, name) for name in names if getattr(loss, name, None) not in (None, "")}


def scaled(example: Sample, factor: float) -> tuple[nn.Module, Any]:
    """(model, loss) of a sample with its loss multiplied by a factor; a copy where the model has its own."""
    if isinstance(example.model, WithLoss):
        model = copy.deepcopy(example.model)
        model.factor = factor
        return model, None
    loss = example.loss
    return example.model, lambda output, y: factor * loss(output, y)


def samples(split: str, sick: int, healthy: int) -> Iterator[Sample]:
    """Every sample of a split, one after the other."""
    return (sample(seed) for seed in seeds(split, sick, healthy))
