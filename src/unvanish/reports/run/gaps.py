"""What the record of a run lacks, in sentences: for the text, the page and the comparison."""

from __future__ import annotations

from unvanish.store import Run

SHOWN = 3  # gaps, at most


def list_gaps(run: Run) -> list[str]:
    """A sentence each: what was lost, which steps are missing, whether the run was closed or goes on."""
    standing = run.standing()
    lost, why = standing.losses.describe(), standing.losses.failure
    lines = [f"{lost} could not be written{f' ({why})' if why else ''}"] if lost else []
    if standing.gaps:
        spans = [f"{a}" if a == b else f"{a} to {b}" for a, b in standing.gaps[:SHOWN]]
        more = f" and in {len(standing.gaps) - SHOWN} more gaps" if len(standing.gaps) > SHOWN else ""
        count = sum(b - a + 1 for a, b in standing.gaps)
        lines.append(f"{count:,} steps in between are not in the record: {', '.join(spans)}{more}")
    if standing.writer:
        lines.append(f"the run goes on: {standing.writer}")
    elif not standing.closed:
        lines.append("the run was not closed: it was killed, and its last moments may be missing")
    return lines
