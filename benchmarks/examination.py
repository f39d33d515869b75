"""One network examined: by unvanish, at other scales of the loss, and by the published rules of others."""

from __future__ import annotations

import math
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks import published
from benchmarks.nets import Sample, sample, scaled

SCALES = (1e6, 1e-6)
CRASHED: dict[str, dict[str, Any]] = {
    "ours": {"codes": ("crash",), "first": "crash"},
    "at_scales": {"scales": {"crash": ("crash at another scale",)}},
}


@dataclass(frozen=True)
class Verdict:
    """What was said about one network, ready for JSON; `codes` is None where unvanish was not asked.

    A crash of `check` is a wrong answer: codes ("crash",), a miss on a sick net, an alarm on a healthy one.
    """

    seed: int
    family: str
    fault: str | None
    codes: tuple[str, ...] | None = None
    first: str | None = None
    confirmed: bool | None = None
    located: bool | None = None  # the first finding names a planted site; None where none is known
    evidence: tuple[str, ...] = ()
    scales: dict[str, tuple[str, ...]] = field(default_factory=dict)
    claims: dict[str, list[str]] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    generated: float = math.nan  # seconds to draw, measure and perhaps redraw
    step: float = math.nan  # seconds of one forward and backward
    checked: float = math.nan  # seconds of unvanish.check
    error: str = ""

    @property
    def scale_free(self) -> bool | None:
        """Whether the verdict was the same at every scale; None where that was not asked."""
        if not self.scales or self.codes is None:
            return None
        return all(
            set(codes) == set(self.codes) and codes[:1] == self.codes[:1] for codes in self.scales.values()
        )

    def row(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Questions:
    """What to ask of each network."""

    ours: bool = True
    scales: bool = False
    others: bool = True


def prepare() -> None:
    """One thread, and no warnings: sick nets provoke many."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def examine(seed: int, questions: Questions) -> Verdict:
    """Draw the network of a seed and ask; a crash is kept as the verdict's error."""
    started = time.perf_counter()
    example = sample(seed)
    generated = time.perf_counter() - started
    answers: dict[str, Any] = {"generated": generated, "step": step_time(example)}
    again = questions.ours and questions.scales
    for wanted, part in ((questions.others, others), (questions.ours, ours), (again, at_scales)):
        if wanted:
            try:
                answers.update(part(example))
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
                answers["error"] = f"{part.__name__}: {said}"[:400]
                answers.update(CRASHED.get(part.__name__, {}))
    return Verdict(seed, example.family, example.fault, description=plain(example.description), **answers)


def step_time(example: Sample) -> float:
    """Seconds of one forward and backward of the model as it is."""
    started = time.perf_counter()
    loss, _, _ = published.objective(example.model, example.batch, example.loss)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    example.model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def others(example: Sample) -> dict[str, Any]:
    """The claims of the published rules."""
    return {"claims": published.claims(example.model, example.batch, example.loss, example.optimizer)}


def ours(example: Sample) -> dict[str, Any]:
    """Unvanish's codes, its first finding, and its evidence."""
    import unvanish

    started = time.perf_counter()
    diagnosis = unvanish.check(example.model, example.batch, example.loss, optimizer=example.optimizer)
    seconds = time.perf_counter() - started
    head = diagnosis.findings[0] if diagnosis.findings else None
    evidence = tuple(f"{e.name}={e.value} {e.unit} ({e.limit})" for e in head.evidence) if head else ()
    return {
        "codes": diagnosis.codes(),
        "first": head.code if head else None,
        "confirmed": head.confirmed if head else None,
        "located": located(example.description.get("planted"), head.sites if head else ()),
        "evidence": evidence,
        "checked": seconds,
    }


def at_scales(example: Sample) -> dict[str, Any]:
    """The codes again, with the loss multiplied."""
    import unvanish

    found = {}
    for factor in SCALES:
        model, loss = scaled(example, factor)
        optimizer = example.optimizer if model is example.model else None
        found[f"{factor:g}"] = unvanish.check(model, example.batch, loss, optimizer=optimizer).codes()
    return {"scales": found}


def located(planted: Any, sites: tuple[str, ...]) -> bool | None:
    """Whether a named site lies in, or holds, a planted module."""
    if not planted or not sites:
        return None
    return any(site.startswith(name) or name.startswith(site) for site in sites for name in planted if site)


def plain(value: Any) -> Any:
    """Data that JSON can hold."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float, bool, str, type(None))) else str(value)
