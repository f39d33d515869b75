"""The exam: planted faults beside their twins, healthy networks, and reports beside their mended twins.

Notable: nothing here imports unvanish, so that it runs in an environment that holds torch and the tool alone.
A case builds its model anew each time, from its own seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import nets
from benchmarks.architectures import convolutional, others
from benchmarks.nets.draw import seeded
from benchmarks.nets.faults import PLANTS
from benchmarks.peers.kinds import Exam
from benchmarks.reported import CASES

GROUPS = ("planted", "twin", "healthy", "reported", "mended", "architecture")
SICK = ("planted", "reported")
DRAWN: dict[int, int] = {}  # by seed, how often its network was drawn again


@dataclass
class Trial:
    """A model as its user would train it: `objective()` is the loss of its one batch, and the output."""

    model: nn.Module
    batch: Any
    loss: Any
    optimizer: torch.optim.Optimizer
    exam: Exam

    def objective(self) -> tuple[Tensor, Any]:
        """(loss, output)."""
        if isinstance(self.batch, dict):
            output = self.model(**self.batch)
            return (output.loss if self.loss is None else self.loss(output, self.batch)), output
        if self.loss is None:
            output = self.model(*self.batch)
            return (output if isinstance(output, Tensor) else output.loss), output
        output = call(self.model, self.batch[0])
        return self.loss(output, self.batch[1]), output


@dataclass(frozen=True)
class Case:
    """One network of the exam."""

    name: str
    group: str
    build: Callable[[], Trial]


def call(model: nn.Module, x: Any) -> Any:
    """The model's output, whether it takes one thing, several, or names."""
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def make_trial(
    model: nn.Module, batch: Any, loss: Any, optimizer: Any = None, exam: Exam | None = None
) -> Trial:
    """The trial, with Adam at 0.001 if no optimizer came along (SGD if the weights are float16)."""
    exam = exam or Exam()
    if optimizer is None:
        own = [p for p in model.parameters() if p.requires_grad]
        half = any(p.dtype == torch.float16 for p in own)
        sparse = any(getattr(m, "sparse", False) for m in model.modules())
        optimizer = torch.optim.SGD(own, 1e-3) if half or sparse else torch.optim.Adam(own, 1e-3)
    holding = sum(any(True for _ in m.parameters(recurse=False)) for m in model.modules())
    return Trial(model, batch, loss, optimizer, Exam(exam.codes, surround(model, exam.planted), holding))


def surround(model: nn.Module, planted: tuple[str, ...]) -> tuple[str, ...]:
    """The planted modules and those defined just before and behind them, by their names in this model."""
    leaves = [name for name, module in model.named_modules() if name and not list(module.children())]
    found = {leaf for leaf in leaves for name in planted if f".{leaf}.".find(f".{name}.") >= 0}
    near = {leaves[i + step] for i, leaf in enumerate(leaves) if leaf in found for step in (-1, 0, 1)
            if 0 <= i + step < len(leaves)}  # fmt: skip
    return tuple(sorted(near | set(planted)))


def list_cases(planted: int, healthy: int, every: int) -> list[Case]:
    """So many planted faults with twins, so many healthy ones; each so-manieth report and architecture."""
    return [
        *(case for seed in nets.seeds("test", planted, 0) for case in twins(seed)),
        *(Case(f"net {seed}", "healthy", drawn_net(seed)) for seed in nets.seeds("test", 0, healthy)),
        *(case for name in list(CASES)[::every] for case in reports(name)),
        *(
            Case(name, "architecture", published(build))
            for name, build in list(ARCHITECTURES.items())[::every]
        ),
    ]


ARCHITECTURES = {**convolutional.BUILDERS, **others.BUILDERS}


def twins(seed: int) -> tuple[Case, Case]:
    """The network of a seed with its planted fault, and the same one without."""
    return Case(f"net {seed}", "planted", drawn_net(seed)), Case(f"net {seed} fixed", "twin", fixed_net(seed))


def drawn_net(seed: int) -> Callable[[], Trial]:
    """Builds the sample of a seed."""

    def build() -> Trial:
        sample = nets.sample(seed)
        DRAWN[seed] = sum(sample.description["redraws"].values())
        places = tuple(sample.description.get("planted") or ())
        exam = Exam((sample.fault,) if sample.fault else (), places)
        return make_trial(sample.model, sample.batch, sample.loss, sample.optimizer, exam)

    return build


def fixed_net(seed: int) -> Callable[[], Trial]:
    """Builds the same network without the plant."""

    def build() -> Trial:
        fault = nets.fault_of(seed)
        if fault is None:
            raise ValueError(f"nothing is planted at seed {seed}")
        if seed not in DRAWN:
            drawn_net(seed)()
        with seeded(f"{seed}/{DRAWN[seed]}") as draw:
            well = PLANTS[fault](draw).well
        well.model.zero_grad(set_to_none=True)
        return make_trial(well.model, well.batch, well.loss, well.optimizer)

    return build


def reports(name: str) -> tuple[Case, Case]:
    """A report as it was, and mended."""

    def build(sick: bool) -> Callable[[], Trial]:
        def made() -> Trial:
            model, batch, loss, *more = CASES[name].build(sick)
            optimizer = more[0].get("optimizer") if more else None
            return make_trial(model, batch, loss, optimizer, Exam(CASES[name].wanted if sick else ()))

        return made

    return Case(name, "reported", build(True)), Case(f"{name} mended", "mended", build(False))


def published(build: Callable[[], Any]) -> Callable[[], Trial]:
    """Builds a published architecture."""

    def made() -> Trial:
        subject = build()
        return make_trial(subject.model, subject.batch, subject.loss)

    return made
