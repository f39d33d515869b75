"""A diagnosis as a picture: verdict, the gradient along the depth, the worst findings and what to do."""

from __future__ import annotations

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.reports.diagnosis.headline import (
    count_findings,
    describe_ratio,
    find_ledger,
    name_verb,
    write_headline,
)
from unvanish.reports.parts.figures import draw_depth, draw_time
from unvanish.reports.parts.markup import tag
from unvanish.reports.parts.picture import EDGE, Sheet
from unvanish.reports.parts.series import read_depth
from unvanish.reports.parts.words import (
    cap,
    capitalise,
    clean,
    describe_measurement,
    describe_remedy,
    list_names,
    plural,
)

TONES = {"healthy": "good", "exploding": "gain", "vanishing": "loss", "unmeasured": "quiet"}  # else an error
FINDINGS, REMEDIES = 3, 2  # shown: findings, remedies of the first


def render(diagnosis: Diagnosis) -> str:
    """The picture as SVG."""
    top = write_headline(diagnosis, find_ledger(diagnosis))
    verb = name_verb(diagnosis)
    sheet = Sheet(TONES.get(top.word, "error"))
    sentence = capitalise(top.sentence)
    ratio = describe_ratio(top.total) if top.time is None and top.total is not None else ""
    sheet.head(
        verb, diagnosis.subject, top.word, f"{sentence} {f'That is {ratio}.' if ratio else ''}".strip()
    )
    sheet.write(", ".join(describe_measurement(diagnosis)), "small", 13)
    curves = read_depth(diagnosis.trace)
    if top.time is not None:
        sheet.draw(draw_time(top.time))
    elif curves is not None:
        sheet.draw(draw_depth(curves))
    shown, rest = cap(diagnosis.counted("note"), FINDINGS)
    for index, finding in enumerate(shown):
        _write_finding(sheet, finding, REMEDIES if index == 0 else 0)
    tally = [*count_findings(diagnosis), f"{plural(len(diagnosis.passed), 'rule')} passed"]
    more = f", {plural(rest, 'finding')} not shown" if rest else ""
    sheet.y += 8
    sheet.write(f"{', '.join(tally)}{more}", "small", 13)
    return sheet.finish(f"unvanish {verb}: {clean(diagnosis.subject)}: {top.sentence}")


def _write_finding(sheet: Sheet, finding: Finding, remedies: int) -> None:
    """Its name, its cause, its places, and the first remedies, beside a bar of its severity."""
    sheet.y += 14
    start, left = sheet.y, float(EDGE + 16)
    sheet.write(f"{finding.code} {finding.name}", "ink bold", 15, left=left)
    sheet.write(finding.cause, "ink", 15, 3, left=left)
    if finding.sites:
        sheet.write(f"at {list_names(finding.sites, 3)}", "code", 14.5, left=left)
    for remedy in finding.remedies[:remedies]:
        why = f": {remedy.why}" if remedy.why else ""
        sheet.write(f"remedy: {describe_remedy(remedy)}{why}", "quiet", 15, 2, left=left)
    bar = tag(
        "rect",
        x=float(EDGE),
        y=start + 5,
        width=4.0,
        height=sheet.y - start,
        rx=2.0,
        class_=finding.severity,
    )
    sheet.parts.append(bar)
