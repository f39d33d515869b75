"""Verdicts counted: per fault and over all, ours and the others, as Rich tables and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from benchmarks.examination import Verdict
from benchmarks.published import PEERS, names

Cells = list[str]


@dataclass(frozen=True)
class Sheet:
    """A title, a head row and rows of text."""

    title: str
    head: Cells
    rows: list[Cells]

    def rich(self) -> Table:
        """The sheet for a terminal."""
        table = Table(title=self.title, title_justify="left")
        for index, name in enumerate(self.head):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The sheet as a Markdown table."""
        rule = ["---"] + ["---:"] * (len(self.head) - 1)
        lines = ["| " + " | ".join(row) + " |" for row in (self.head, rule, *self.rows)]
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n"


def share(verdicts: Sequence[Verdict], holds: Callable[[Verdict], bool | None]) -> str:
    """Per cent of the verdicts for which something holds, of those where it is known."""
    known = [bool(h) for h in map(holds, verdicts) if h is not None]
    return f"{100 * sum(known) / len(known):.1f}" if known else "-"


def named_first(verdict: Verdict) -> bool | None:
    """The planted code is our first finding."""
    return None if verdict.codes is None else verdict.first == verdict.fault


def found(verdict: Verdict) -> bool | None:
    """The planted code is among our findings or their consequences."""
    return None if verdict.codes is None else verdict.fault in verdict.codes


def alarmed(verdict: Verdict) -> bool | None:
    """We gave at least one warning."""
    return None if verdict.codes is None else bool(verdict.codes)


def peer_detected(peer: str) -> Callable[[Verdict], bool | None]:
    """The peer said anything at all."""
    return lambda v: bool(v.claims[peer]) if peer in v.claims else None


def peer_named(peer: str) -> Callable[[Verdict], bool | None]:
    """The peer said something that stands for the planted code."""
    return lambda v: names(v.claims[peer], v.fault or "") if peer in v.claims else None


def by_code(verdicts: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """The sick networks by planted code, and all of them last."""
    sick = [v for v in verdicts if v.fault]
    groups = [(code, [v for v in sick if v.fault == code]) for code in sorted({v.fault or "" for v in sick})]
    return [*groups, ("all", sick)]


def by_fault(verdicts: Sequence[Verdict]) -> Sheet:
    """The share of each fault that unvanish names and finds."""
    head = ["fault", "n", "named first %", "found %", "any warning %", "site %"]
    columns = (named_first, found, alarmed, lambda v: v.located)
    rows = [[code, str(len(group)), *(share(group, c) for c in columns)] for code, group in by_code(verdicts)]
    return Sheet("Sick networks: unvanish", head, rows)


def peers_by_fault(verdicts: Sequence[Verdict]) -> Sheet:
    """The published rules on the same networks."""
    head = ["detected / named %", "n", *PEERS]
    rows = []
    for code, group in by_code(verdicts):
        cells = [f"{share(group, peer_detected(p))} / {share(group, peer_named(p))}" for p in PEERS]
        rows.append([code, str(len(group)), *cells])
    return Sheet("Sick networks: published rules", head, rows)


def by_recipe(verdicts: Sequence[Verdict]) -> Sheet:
    """False alarms on healthy networks, by recipe and over all."""
    healthy = [v for v in verdicts if not v.fault]
    recipes = sorted({str(v.description["recipe"]) for v in healthy})
    groups = [(name, [v for v in healthy if v.description["recipe"] == name]) for name in recipes]
    rows = []
    for name, group in [*groups, ("all", healthy)]:
        row = [name, str(len(group)), share(group, alarmed), *(share(group, peer_detected(p)) for p in PEERS)]
        rows.append(row)
    return Sheet("Healthy networks: % with a warning", ["recipe", "n", "unvanish", *PEERS], rows)


def confusion(verdicts: Sequence[Verdict]) -> Sheet:
    """Which code came first instead of the planted one."""
    pairs = Counter(
        (v.fault or "healthy", wrongly(v))
        for v in verdicts
        if v.codes is not None and (alarmed(v) if not v.fault else not named_first(v))
    )
    rows = [[planted, said, str(count)] for (planted, said), count in pairs.most_common()]
    return Sheet("Confusion", ["planted", "first finding", "n"], rows)


def wrongly(verdict: Verdict) -> str:
    """What was said instead: the first finding, and whether the planted code came later."""
    first = verdict.first or "nothing"
    return f"{first} (planted found later)" if verdict.fault and found(verdict) else first


def speed(verdicts: Sequence[Verdict]) -> Sheet:
    """Redraws, seconds, and how often verdicts moved with the scale of the loss."""
    draws = [sum(v.description.get("redraws", {}).values()) for v in verdicts]
    ratios = [v.checked / v.step for v in verdicts if v.checked == v.checked and v.step > 0]
    rows = [
        ["networks", str(len(verdicts))],
        ["crashes", str(sum(bool(v.error) for v in verdicts))],
        ["redrawn networks %", f"{100 * sum(d > 0 for d in draws) / max(len(draws), 1):.1f}"],
        ["redraws a network", f"{sum(draws) / max(len(draws), 1):.2f}"],
        ["seconds to generate, median", f"{median([v.generated for v in verdicts]):.3f}"],
        ["forward + backward, median ms", f"{1e3 * median([v.step for v in verdicts]):.1f}"],
        ["check / (forward + backward), median", f"{median(ratios):.1f}" if ratios else "-"],
        ["same verdict at loss x1e6 and x1e-6 %", share(verdicts, lambda v: v.scale_free)],
    ]
    return Sheet("Run", ["figure", "value"], rows)


def figures(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The shares, in per cent, and the median cost that a run is remembered by; those that are known."""
    sick, healthy = [v for v in verdicts if v.fault], [v for v in verdicts if not v.fault]
    ratios = [v.checked / v.step for v in verdicts if v.checked == v.checked and v.step > 0]
    shares = {
        "named first %": share(sick, named_first),
        "found %": share(sick, found),
        "any warning %": share(sick, alarmed),
        "healthy with a warning %": share(healthy, alarmed),
        "same verdict at other scales %": share(verdicts, lambda v: v.scale_free),
        "check / (forward + backward)": f"{median(ratios):.2f}" if ratios else "-",
    }
    for peer in PEERS:
        shares[f"{peer}: named %"] = share(sick, peer_named(peer))
        shares[f"{peer}: healthy with a warning %"] = share(healthy, peer_detected(peer))
    return {name: float(value) for name, value in shares.items() if value != "-"}


def redraws(verdicts: Sequence[Verdict]) -> Sheet:
    """How often draws were thrown away, by fault or recipe, and the commonest reason."""
    groups: dict[str, list[Counter[str]]] = {}
    for v in verdicts:
        kind = v.fault or str(v.description["recipe"])
        groups.setdefault(kind, []).append(Counter(v.description.get("redraws", {})))
    rows = []
    for kind, counts in sorted(groups.items()):
        total: Counter[str] = sum(counts, Counter())
        if total:
            reason, times = total.most_common(1)[0]
            rows.append(
                [
                    kind,
                    f"{total.total() / len(counts):.2f}",
                    f"{reason.partition(': ')[2] or reason} ({times})",
                ]
            )
    return Sheet("Redraws", ["drawn again", "a network", "commonest reason"], rows)


def sheets(verdicts: Sequence[Verdict]) -> list[Sheet]:
    """Every table of a run."""
    judged = [by_fault(verdicts), peers_by_fault(verdicts), by_recipe(verdicts), confusion(verdicts)]
    return [*judged, redraws(verdicts), speed(verdicts)]


def failures(verdicts: Sequence[Verdict]) -> list[str]:
    """One paragraph a failure: seed, family, planted, what we said, evidence, description."""
    lines = []
    for v in verdicts:
        wrong = alarmed(v) if not v.fault else named_first(v) is False
        if wrong or v.scale_free is False or v.error:
            facts = {k: f for k, f in v.description.items() if k not in ("redraws", "form")}
            lines.append(
                f"seed {v.seed} {v.family} planted {v.fault or 'nothing'}: first {v.first}, codes {v.codes}, "
                f"scales {v.scales} {v.error}\n    {'; '.join(v.evidence)}\n    {facts}"
            )
    return lines
