"""Diagnoses built by hand, each with the ledger that goes with it, for the tests of the reports.

Notable:
- No model runs here: a report is a function of a `Diagnosis` and a `Ledger`, so both are written down.
- The ledger is handed over by replacing the one lookup the reports make, so golden files stay put
  when the ledger's own arithmetic changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Diagnosis, Evidence, Finding, Remedy, Verdict
from unvanish.core.ledger import Ledger, Row
from unvanish.core.trace import STATISTICS, Axis, Site, Trace

Rows = list[tuple[str, str, dict[str, float]]]
LN10 = math.log(10.0)
GOOD = "ACT001 ACT003 INI002 INI003 DEP002 INP001 OUT001 OUT002 OUT003 PRC001 PRC002"
CODES = tuple(re.findall(r"\w+", GOOD))


@dataclass(frozen=True)
class Example:
    """A diagnosis and the ledger its reports shall show."""

    diagnosis: Diagnosis
    book: Ledger | None


def trace(sites: list[Site], axes: tuple[Axis, ...], facts: Mapping[str, Any], **columns: Any) -> Trace:
    """A trace of one step with these columns; everything else is NaN."""
    values = np.full((1, len(sites), len(STATISTICS)), np.nan)
    for name, column in columns.items():
        values[0, :, list(STATISTICS).index(name)] = column
    return Trace(tuple(sites), values, axes, facts)


def book(rows: Rows) -> Ledger:
    """A ledger out of (path, kind, parts), from the loss to the input."""
    below, out = 0.0, []
    for path, kind, parts in rows:
        below += sum(parts.values())
        out.append(Row(path, kind, sum(parts.values()), parts, (), below))
    return Ledger("depth", tuple(out))


def verdicts(codes: tuple[str, ...], reason: str) -> tuple[Verdict, ...]:
    return tuple(Verdict(code, f"rule-{code.lower()}", reason) for code in codes)


ABSENT = (
    *verdicts(("REC001", "REC002"), "no module runs through time"),
    *verdicts(("ATT001", "ATT002"), "no attention"),
    *verdicts(("NRM001", "NRM002"), "no normalisation"),
    *verdicts(("OPT004",), "no optimizer was given"),
)
FACTS = {
    "loss": 2.3185,
    "loss_kind": "cross-entropy",
    "batch_size": 64,
    "dtype": "float32",
    "device": "cpu",
    "parameters": 241_546,
    "training": True,
    "objective": "loss",
    "torch": "2.13.0",
    "assumptions": [],
}


def plain_rows(depth: int, slope: float = -0.62, weights: float = -0.02) -> Rows:
    """Linear and Sigmoid in turn, with a little deterministic noise, from the loss down."""
    rows = [(f"layers.{depth}", "Linear", {"weights": 0.31, "alignment": -0.05})]
    for i in reversed(range(depth)):
        wave = 0.03 * math.sin(2.1 * i)
        rows.append((f"layers.{i}.act", "Sigmoid", {"slope": slope + wave}))
        rows.append((f"layers.{i}.linear", "Linear", {"weights": weights - wave / 2, "alignment": wave / 3}))
    return rows


def along(ledger: Ledger, facts: Mapping[str, Any], rms: Callable[[int], float] = lambda i: 1.0) -> Trace:
    """A trace whose depth axis has the ledger's cumulative gradient."""
    sites = [Site("", "loss", role="output"), *(Site(row.path, row.kind) for row in ledger.rows)]
    logs = [-3.0, *(-3.0 + row.below * LN10 for row in ledger.rows)]
    axis = Axis("depth", "depth", tuple(range(len(sites))))
    return trace(sites, (axis,), facts, backward_log=logs, forward_rms=[rms(i) for i in range(len(sites))])


def sick() -> Example:
    """Thirty layers of Sigmoid: the slope takes the gradient, the samples become alike."""
    ledger = book(plain_rows(30))
    where = tuple(f"layers.{i}.act" for i in range(30))
    collapse = Finding(
        "DEP001",
        "information-collapse",
        "error",
        "all samples look alike from layers.7 on (cosine 1.0000), so no optimizer can help",
        sites=tuple(f"layers.{i}" for i in range(7, 30)),
        evidence=(Evidence("cosine between samples", 0.99998, "", "< 0.99", "layers.7"),),
    )
    small = Finding(
        "INI001", "weights-too-small", "warning", "the weights shrink the gradient too", ("layers.3.linear",)
    )
    cause = Finding(
        "ACT002",
        "contracting-activation",
        "error",
        "the slope of Sigmoid is at most 1/4, so each of 30 activations takes 0.62 decades from the gradient"
        " although hardly a unit is saturated",
        sites=where,
        evidence=(
            Evidence("mean square slope", 0.0569, "", ">= 0.5", "layers.3.act"),
            Evidence("gain per activation", -0.62, "decades", ">= -0.1"),
            Evidence("all 30 together", -18.6, "decades"),
            Evidence("saturated units", 0.004, "share", "< 0.5"),
        ),
        remedies=(
            Remedy(
                "centred-sigmoid",
                where,
                "Sigmoid is a Tanh of half its input: the same function, slope 1 at 0",
                "exact",
            ),
            Remedy(
                "swap-activation",
                where,
                "the slope of Tanh is 1 at 0",
                "retrain",
                {"to": "Tanh", "gain": 1.4674},
            ),
            Remedy("add-skips", (), "skips carry the gradient past any activation", "advice"),
        ),
        direction="vanishing",
        weight=18.6,
        confirmed=True,
        experiment="with the slopes set to 1 on a copy, the input gets -0.9 decades instead of -18.9",
        consequences=(collapse, small),
    )
    unused = Finding(
        "GRF002",
        "unused-parameter",
        "warning",
        "two trainable parameters took no part in the forward pass",
        ("aux.weight", "aux.bias"),
        (Evidence("parameters", 1290, "numbers"),),
        (Remedy("remove-module", ("aux",), "nothing reads it", "advice"),),
        confirmed=None,
    )
    facts = {**FACTS, "assumptions": ["the batch was standard normal noise: no data was given"]}
    measured = along(ledger, facts, lambda i: 0.52 if i else 0.9)
    return Example(
        Diagnosis(
            (cause, unused), measured, verdicts(CODES, "ok"), ABSENT, (), "deep_sigmoid.py:build", 0.4137
        ),
        ledger,
    )


def healthy() -> Example:
    """A residual network that is well."""
    rows = [("head", "Linear", {"weights": 0.08}), ("norm", "LayerNorm", {"alignment": -0.05})]
    rows += [(f"blocks.{i}", "Block", {"alignment": 0.02}) for i in reversed(range(8))]
    ledger = book(rows)
    note = Finding(
        "GRF003", "frozen", "note", "12 % of the parameters are frozen on purpose", ("embed.weight",)
    )
    return Example(
        Diagnosis((note,), along(ledger, FACTS), verdicts(CODES, "ok"), ABSENT, (), "resnet8", 0.1823), ledger
    )


def blocks() -> Example:
    """A residual stream that grows: rows open into branches, one bears most of the account."""
    attention = Row("blocks.2.attention", "Attention", 2.9, {"weights": 2.5, "alignment": 0.4}, (), 4.2)
    mlp = Row("blocks.2.mlp", "MLP", 0.8, {}, (), 5.0)
    rows = (
        Row("head", "Linear", 0.5, {"weights": 0.5}, (), 0.5),
        Row("blocks.3", "Block", 0.8, {}, (), 1.3),
        Row("blocks.2", "Block", 3.7, {}, (attention, mlp), 5.0),
        Row("blocks.1", "Block", -0.4, {}, (), 4.6),
        Row("blocks.0", "Block", 0.6, {}, (), 5.2),
    )
    ledger = Ledger("depth", rows)
    cause = Finding(
        "INI002",
        "weights-too-large",
        "warning",
        "the weights of blocks.2.attention grow the gradient by 2.5 decades",
        ("blocks.2.attention",),
        (Evidence("weights' part", 2.5, "decades", "<= 0.5", "blocks.2.attention"),),
        (Remedy("re-initialise", ("blocks.2.attention",), "gain 1", "retrain", {"gain": 1.0}),),
        "exploding",
        2.5,
        False,
        "with the weights of blocks.2.attention scaled to gain 1 on a copy the total is still +4.9 decades",
    )
    return Example(
        Diagnosis((cause,), along(ledger, FACTS), verdicts(CODES[:4], "ok"), ABSENT, (), "stream", 1.25),
        ledger,
    )


def recurrent() -> Example:
    """A recurrence of 120 steps that forgets, next to a flat depth."""
    ledger = book([("head", "Linear", {"weights": 0.12}), ("rnn", "RNN", {"weights": -0.31, "slope": -0.08})])
    base = along(ledger, {**FACTS, "loss_kind": "mse", "loss": 0.167})
    steps = [Site("rnn", "RNN", role="step", facts={"step": t, "of": "rnn"}) for t in range(120)]
    state = [math.nan] * len(base.sites) + [-2.0 - 0.41 * (119 - t) for t in range(120)]
    logs = [*base.column("backward_log"), *[math.nan] * 120]
    carry = [math.nan] * len(base.sites) + [
        -0.4187 * (119 - t) - 0.3 * math.sin(t / 9) * (t < 119) for t in range(120)
    ]
    full = trace(
        [*base.sites, *steps], base.axes, base.facts, backward_log=logs, state_log=state, carry_log=carry
    )
    cause = Finding(
        "REC001",
        "vanishing-through-time",
        "error",
        "the gradient keeps 66 % a step back, so it is gone after a horizon of 7 steps; the sequence has 120",
        ("rnn",),
        (
            Evidence("slope", -0.4187, "nats a step", "|slope x T| <= 3", "rnn"),
            Evidence("horizon", 7.2, "steps", ">= 120", "rnn"),
        ),
        (Remedy("chrono-init", ("rnn",), "remember for 120 steps", "retrain", {"steps": 120}),),
        "vanishing",
        21.6,
    )
    return Example(
        Diagnosis(
            (cause,),
            full,
            verdicts(CODES[:6], "ok"),
            ABSENT[2:],
            verdicts(("OUT001",), "needs logits"),
            "adding",
            2.0,
        ),
        ledger,
    )


def broken() -> Example:
    """NaN from the third layer on, no gradient below it, infinities in the evidence."""
    ledger = Ledger(
        "depth",
        (
            Row("head", "Linear", 0.2, {"weights": 0.2}, (), 0.2),
            Row("norm", "Log", math.nan, {}, (), math.nan),
            Row("gate", "Round", -math.inf, {"slope": -math.inf}, (), -math.inf),
            Row("stem", "Conv2d", math.inf, {}, (), math.nan),
        ),
    )
    cause = Finding(
        "NUM001",
        "non-finite",
        "error",
        "norm (Log) is the first to make NaN: 12 % of its outputs",
        ("norm",),
        (
            Evidence("NaN or infinite outputs", 0.12, "share", "= 0", "norm"),
            Evidence("largest output", math.inf, "", "finite", "norm"),
            Evidence("loss", math.nan),
            Evidence("input", "contains zeros"),
        ),
        direction="blocked",
    )
    facts = {**FACTS, "loss": math.nan, "crash": "RuntimeError: Function 'LogBackward0' returned nan"}
    return Example(Diagnosis((cause,), along(ledger, facts), (), (), (), "broken", math.nan), ledger)


def silent() -> Example:
    """A rounding in the middle: exactly no gradient below it."""
    rows = [
        ("head", "Linear", {"weights": 0.2}),
        ("quantise", "Round", {"slope": -math.inf}),
        ("stem", "Conv2d", {}),
    ]
    ledger = book(rows)
    cause = Finding(
        "GRF004",
        "zero-derivative",
        "error",
        "quantise (Round) passes exactly no gradient",
        ("quantise",),
        direction="blocked",
    )
    return Example(Diagnosis((cause,), along(ledger, FACTS), (), (), (), "silent", 0.05), ledger)


def thousands() -> Example:
    """Three thousand layers, one of them pinched, and more findings than anyone reads."""
    rows = plain_rows(1500, slope=-0.002, weights=0.001)
    rows[1401] = (rows[1401][0], "Linear", {"weights": -4.2})
    ledger = book(rows)
    pinched = Finding(
        "INI001",
        "weights-too-small",
        "error",
        "one layer pinches the gradient",
        (rows[1401][0],),
        direction="vanishing",
    )
    dead = [
        Finding("ACT003", "dead-units", "warning", f"unit {i} never fires", (f"layers.{i}.act",))
        for i in range(40)
    ]
    return Example(Diagnosis((pinched, *dead), along(ledger, FACTS), (), (), (), "thousands", 31.0), ledger)


WEIRD = (
    "<script>alert('&')</script>",
    "a" * 300,
    "\x1b[31mred\x1b[0m\nline two\r\t\x00",
    "層" * 60,
    "lone \ud800 surrogate",
    "[bold]markup[/bold] {braces} %s",
    "",
)


def weird() -> Example:
    """Names that attack a page, a terminal or an encoder."""
    ledger = book([(name, name, {"weights": -0.5}) for name in WEIRD])
    nasty = WEIRD[0]
    findings = tuple(
        Finding(
            "ACT002",
            name,
            "error",
            f"because of {name}",
            (name, *WEIRD),
            (Evidence(name, name, name, name, name),),
            (Remedy(name, (name,), name, "retrain", {name: name}),),
            "vanishing",
            1.0,
            True,
            name,
            (Finding("DEP001", name, "warning", name),),
        )
        for name in WEIRD
    )
    facts = {
        "loss_kind": nasty,
        "loss": 1.0,
        "dtype": nasty,
        "device": nasty,
        "assumptions": [nasty],
        "batch_size": nasty,
    }
    base = along(ledger, {**facts, "torch": nasty})
    steps = [Site(nasty, nasty, role="step", facts={"step": t, "of": nasty}) for t in range(5)]
    full = trace([*base.sites, *steps], base.axes, base.facts, state_log=[0.0] * (len(base.sites) + 5))
    reasons = tuple(Verdict("REC001", name, name) for name in WEIRD)
    return Example(Diagnosis(findings, full, reasons, reasons, reasons, nasty), ledger)


def empty() -> Example:
    """Nothing was measured and nothing found."""
    return Example(Diagnosis((), Trace((), np.zeros((0, 0, len(STATISTICS))))), None)


EXAMPLES: dict[str, Callable[[], Example]] = {
    f.__name__: f for f in (sick, healthy, blocks, recurrent, broken, silent, thousands, weird, empty)
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Diagnosis]]:
    """`example("sick")` is a diagnosis whose reports show the ledger written for it."""
    from unvanish.reports.diagnosis import headline

    real, books = headline.ledger, {}

    def build(name: str) -> Diagnosis:
        made = EXAMPLES[name]()
        marked = replace(made.diagnosis.trace, facts={**made.diagnosis.trace.facts, "example": name})
        books[name] = made.book
        return replace(made.diagnosis, trace=marked)

    def lookup(measured: Trace) -> Ledger | None:
        name = measured.facts.get("example")
        return books[name] if name in books else real(measured)

    monkeypatch.setattr(headline, "ledger", lookup)
    yield build


@pytest.fixture(params=sorted(EXAMPLES))
def diagnosis(request: pytest.FixtureRequest, example: Callable[[str], Diagnosis]) -> Diagnosis:
    """Every example in turn."""
    return example(request.param)
