"""Does what `cure` calls cured train like the fixed twin, on fresh data, with the user's own optimizer?

Run it with `python -m benchmarks.cured`; `--only sigmoid,rnn` takes those whose names or kinds hold a word.
Each sick network of `benchmarks/twins` is cured from one batch of 64 samples. Its prescription is then
applied as the documentation says, and sick, cured and fixed side are trained by the user's optimizer on fresh
samples.

An error is 1 for the best answer that ignores the input, 0 for a perfect one, on 1,024 unseen samples. "Like
its twin": at least 0.85 of what the twin gained. A twin whose sick side reaches that too is no case, and not
counted.
`--out` gets a line for each network; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import record
from benchmarks.twins import Twin, twins

LIKE = 0.85  # of the twin's gain
SIZE = 64  # samples of a batch
UNSEEN = 1024  # samples
BUDGET = 300.0  # seconds of `cure`, so that a busy machine changes no verdict


@dataclass
class Outcome:
    """What became of one twin: the verdict of `cure`, and the errors of its three sides."""

    name: str
    kind: str
    curable: bool
    codes: tuple[str, ...] = ()
    cured: bool = False
    remedies: tuple[str, ...] = ()
    training: str = ""
    sick: float = 1.0
    treated: float = 1.0
    fixed: float = 1.0
    seconds: float = 0.0
    reason: str = ""
    alarms: tuple[str, ...] = ()  # what `check` says of the fixed side
    attempts: tuple[str, ...] = ()

    @property
    def is_case(self) -> bool:
        """Whether the sick side learns clearly less than the fixed one."""
        return self.sick > 1 - LIKE * (1 - self.fixed)

    @property
    def trains(self) -> bool:
        """Whether the treated side learns like the fixed one."""
        return self.treated <= 1 - LIKE * (1 - self.fixed)


def train(model: nn.Module, loss: Any, optimizer: Any, twin: Twin) -> float:
    """The error on unseen samples after the user's own training."""
    for step in range(twin.steps):
        x, y = twin.task.batch(SIZE, 100 + step)
        optimizer.zero_grad()
        value = loss(model(_like(x, model)), y)
        if not value.requires_grad or not bool(torch.isfinite(value)):
            break
        value.backward()
        optimizer.step()
    x, y = twin.task.batch(UNSEEN, 1)
    model.eval()
    with torch.no_grad():
        output: Tensor = model(_like(x, model)).float()
    if getattr(loss, "std", None) is not None:  # it learned standardised targets
        output = output * torch.as_tensor(loss.std) + torch.as_tensor(loss.mean)
    return twin.task.error(output, y)


def _like(x: Any, model: nn.Module) -> Any:
    """The batch in the dtype of the model."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return x.to(dtype) if x.is_floating_point() else x


def judge(twin: Twin) -> Outcome:
    """Cure one twin, train its three sides."""
    import unvanish

    found = Outcome(twin.name, twin.kind, twin.curable)
    model, loss, optimizer = twin.make(True)
    found.sick = train(model, loss, optimizer, twin)
    model, loss, optimizer = twin.make(False)
    x, y = twin.task.batch(SIZE, 0)
    found.alarms = unvanish.check(model, (_like(x, model), y), loss).codes()
    found.fixed = train(model, loss, optimizer, twin)
    model, loss, optimizer = twin.make(True)
    batch = (_like(x, model), y)
    started = time.thread_time()
    try:
        held = {"optimizer": optimizer} if twin.given else {}
        cured = unvanish.cure(model, batch, loss, budget=BUDGET, **held)
        found.codes, found.cured = cured.before.codes(), cured.success and bool(cured.prescription)
        found.remedies = tuple(dict.fromkeys(r.cure for r in cured.prescription.remedies))
        found.reason, found.training = cured.reason, cured.proof.training if cured.proof else ""
        found.attempts = tuple(f"{'+'.join(a.cures)}: {a.result}" for a in cured.attempts)
        receipt = unvanish.apply(model, cured.prescription, batch=batch, loss=loss, optimizer=optimizer)
        found.seconds = time.thread_time() - started
        found.treated = train(model, receipt.loss or loss, optimizer, twin)
    except Exception as error:
        found.reason = f"{type(error).__name__}: {error}"[:300]
    return found


def run(names: list[str], out: Path | None) -> list[Outcome]:
    """Every outcome, each written down at once."""
    lines = out.read_text().splitlines() if out is not None and out.exists() else []
    rows = {row["name"]: Outcome(**row) for row in map(json.loads, lines)}
    for name in names:
        if name not in rows:
            rows[name] = judge(twins()[name])
            print(describe(rows[name]), flush=True)
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(asdict(rows[name])) + "\n")
    return [rows[name] for name in names]


def sort(o: Outcome) -> str:
    """What became of it, in a word."""
    if not o.is_case:
        return "no case"
    if o.cured:
        return "cured, trains" if o.trains else "CURED, DOES NOT"
    if not o.curable:
        return "left to a person"
    return "not called cured" if o.trains else "not cured"


def describe(o: Outcome) -> str:
    """One line."""
    errors = f"{o.sick:.2f} {o.treated:.2f} {o.fixed:.2f}"
    said = f"{' '.join(o.codes) or '-':24} {'+'.join(o.remedies) or '-'}"
    return f"{o.name:22} {sort(o):18} {errors}  {o.seconds:5.1f} s  {said}  {' '.join(o.alarms)}"


def count(outcomes: list[Outcome]) -> dict[str, record.Figure]:
    """The two shares, and what they are made of."""
    kept = [o for o in outcomes if o.is_case]
    called = [o for o in kept if o.cured]
    curable = [o for o in kept if o.curable]
    return {
        "cases": len(kept),
        "called cured": len(called),
        "of them train like the twin": sum(o.trains for o in called) / max(1, len(called)),
        "curable": len(curable),
        "of them cured and train": sum(o.cured and o.trains for o in curable) / max(1, len(curable)),
        "fixed twins with a warning": sum(bool(o.alarms) for o in outcomes),
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="words, with commas")
    parser.add_argument("--show", action="store_true", help="print the attempts of what is not cured")
    parser.add_argument("--out", type=Path, metavar="results.jsonl")
    record.add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    words = [word for word in options.only.split(",") if word] or [""]
    names = [n for n, t in twins().items() if any(w in n or w in t.kind for w in words)]
    outcomes = run(names, options.out)
    table = Table("kind", "what became of it")
    for kind in dict.fromkeys(o.kind for o in outcomes):
        became = Counter(sort(o) for o in outcomes if o.kind == kind)
        table.add_row(kind, ", ".join(f"{name} {n}" for name, n in became.items()))
    Console(width=120).print(table)
    for o in outcomes if options.show else ():
        if sort(o) in ("CURED, DOES NOT", "not cured", "not called cured"):
            print(describe(o), o.reason, *(f"    {line}" for line in o.attempts), sep="\n")
    figures = count(outcomes)
    for name, value in figures.items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    record.append("cured", options, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
