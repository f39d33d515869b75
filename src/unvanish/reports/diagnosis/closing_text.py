"""The end of a terminal report: what else was judged, what was assumed or left out, and how many findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from unvanish.core.diagnosis import Diagnosis, Verdict
from unvanish.reports.diagnosis.detail import Detail
from unvanish.reports.diagnosis.headline import count_findings
from unvanish.reports.parts.sheet import assemble, clip, hang
from unvanish.reports.parts.words import clean, describe_theory, group_by_reason, list_names, plural

SENTENCES = 2  # assumed, not measured, not put back: of each on a screen


def close_report(diagnosis: Diagnosis, width: int, detail: Detail) -> list[Text]:
    """Verdicts as counts, or all of them; the sentences a reader must know; the last line."""
    if detail.whole:
        return [*_excused(diagnosis, width), *_judged(diagnosis, width), *_said(diagnosis, width, detail)]
    said = _said(diagnosis, width, detail)
    return [*_count_excused(diagnosis, width), *said, *_count_judged(diagnosis, width)]


def _count_judged(diagnosis: Diagnosis, width: int) -> list[Text]:
    """How many rules passed, did not apply, were skipped; and of a sick model the findings."""
    tally = [f"{plural(len(diagnosis.passed), 'rule')} passed"] if diagnosis.passed else []
    tally += [f"{len(diagnosis.not_applicable)} not applicable"] if diagnosis.not_applicable else []
    tally += [f"{len(diagnosis.skipped)} skipped"] if diagnosis.skipped else []
    worst = next(iter(diagnosis.counted("warning")), None)
    page = f"`unvanish explain {clean(worst.code)}`" if worst is not None else ""
    parts = [f"{', '.join(tally)} (-v lists them)"] if tally else []
    text = "; ".join(parts + ([page] if page else []))
    if cell_len(text) > width:
        text = text.replace(" (-v lists them)", " (-v)")
    return [*_conclude(diagnosis, width), *(clip(hang([], text, width, 2, "dim"), 2) if text else [])]


def _judged(diagnosis: Diagnosis, width: int) -> list[Text]:
    """Every rule that found nothing, with the reasons of those that did not apply."""
    codes = " ".join(clean(v.code) for v in diagnosis.passed)
    out = hang([(f"passed ({len(diagnosis.passed)}): ", "green")], codes, width, 2) if codes else []
    out += _group("not applicable", diagnosis.not_applicable, width)
    return [*out, *_group("skipped", diagnosis.skipped, width)]


def _said(diagnosis: Diagnosis, width: int, detail: Detail) -> list[Text]:
    """Theory, assumptions, what is not measured, what may have changed; a few of each on a screen."""
    theory = describe_theory(diagnosis)
    out = hang([("theory: ", "bold")], theory, width, 2, "dim") if theory and detail.numbers > 3 else []
    lists = (
        ("assumed", diagnosis.trace.facts.get("assumptions") or ()),
        ("not measured", diagnosis.unmeasured),
        ("may have changed, and cannot be put back", diagnosis.not_put_back),
    )
    for title, sentences in lists:
        shown = sentences if detail.whole else sentences[:SENTENCES]
        for sentence in shown:
            lines = hang([(f"{title}: ", "bold")], clean(sentence), width, 2)
            out += clip(lines, detail.sentence)
        if rest := len(sentences) - len(shown):
            out.append(assemble((f"{title}: and {rest} more", "dim")))
    return [*out, *(_conclude(diagnosis, width) if detail.whole else [])]


def _excused(diagnosis: Diagnosis, width: int) -> list[Text]:
    """What does not count: each finding that is ignored with its reason, old ones by their codes."""
    out: list[Text] = []
    if diagnosis.excused:
        out = [assemble((f"suppressed ({len(diagnosis.excused)}):", "dim"))]
    old: Counter[str] = Counter()
    for finding in diagnosis.excused:
        name = f"{clean(finding.code)} {clean(finding.name)}"
        if finding.excuse is not None and finding.excuse.kind == "ignored":
            where = f" at {list_names(finding.sites, 1)}" if finding.sites else ""
            out += hang(["  "], f"{name}{where}, ignored: {clean(finding.excuse.reason)}", width, 6, "dim")
        else:
            old[name] += 1
    if old:
        tally = ", ".join(f"{name}{f' ({n})' if n > 1 else ''}" for name, n in old.items())
        out += hang(["  "], f"in the baseline: {tally}", width, 6, "dim")
    return out


def _count_excused(diagnosis: Diagnosis, width: int) -> list[Text]:
    """The same in a few lines: all of them if they are few, else their codes."""
    lines = _excused(diagnosis, width)
    if len(lines) <= SENTENCES + 1:
        return lines
    tally = Counter(clean(f.code) for f in diagnosis.excused)
    codes = list_names([f"{code} ({n})" for code, n in tally.items()], 6)
    return hang([(f"suppressed ({len(diagnosis.excused)}): ", "dim")], codes, width, 2, "dim")


def _conclude(diagnosis: Diagnosis, width: int) -> list[Text]:
    """The last line: how many findings, and their codes."""
    counted = diagnosis.counted("warning")
    if diagnosis.healthy or (diagnosis.excused and not counted):
        return []
    codes = [clean(code) for code in dict.fromkeys(f.code for f in counted)]
    head = ("found ", "bold"), (" and ".join(count_findings(diagnosis)[:2]), "bold"), ": "
    return hang(head, list_names(codes, 12), width, 2)


def _group(title: str, verdicts: Sequence[Verdict], width: int) -> list[Text]:
    if not verdicts:
        return []
    out = [assemble((f"{title} ({len(verdicts)}):", "dim"))]
    for reason, group in group_by_reason(verdicts):
        out += hang(["  "], f"{' '.join(clean(v.code) for v in group)}: {reason}", width, 6, "dim")
    return out
