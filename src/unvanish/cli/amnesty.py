"""What does not count in a call: ignored places, and the baseline, which is read before the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unvanish.cli.errors import CallError
from unvanish.cli.outcome import refuse_path
from unvanish.core.names import show

if TYPE_CHECKING:
    from unvanish.clinic.baseline import Baseline
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis


def open_baseline(settings: Config, old: Path | None, new: Path | None) -> Baseline | None:
    """The baseline of the call, else the project's; None without one. CallError if it cannot be used.

    A file that is to be written serves too, if it is there: it may hold other models.
    """
    from unvanish.clinic import baseline

    refuse_path("--write-baseline", new, ".json")
    path = old or settings.baseline
    if new is not None and (path is None or not path.exists()):
        path = new if new.exists() else None
    if path is None:
        return None
    if not path.exists():
        raise CallError(f"there is no baseline {path}; --write-baseline {path} makes one")
    try:
        return baseline.read(path)
    except baseline.BaselineError as error:
        raise CallError(str(error)) from error


def renew_baseline(diagnosis: Diagnosis, settings: Config, old: Baseline | None, path: Path) -> Baseline:
    """The baseline with what is found now, as it is written to `path`; CallError if it cannot be written."""
    from unvanish.clinic.baseline import Baseline, collect, write
    from unvanish.clinic.excuses import excuse

    left = excuse(diagnosis, settings.excused)
    found = collect(left, "note" if settings.fail_on == "note" else "warning")
    new = (old or Baseline()).renew(diagnosis.subject, found)
    try:
        print(f"wrote {write(path, new)}", file=sys.stderr)
    except OSError as error:
        raise CallError(str(error)) from error
    return new


def excuse_findings(diagnosis: Diagnosis, settings: Config, old: Baseline | None = None) -> Diagnosis:
    """The diagnosis with its excuses; those of call and baseline that nothing needs any more go to stderr."""
    from unvanish.clinic.excuses import excuse, list_unused

    for ignored in list_unused(diagnosis, settings.excused):
        if ignored.asked:
            print(f"unvanish: --ignore {show(ignored)}: there is no such finding", file=sys.stderr)
    stale = [show(entry) for entry in old.list_stale(diagnosis)] if old is not None else []
    if stale:
        shown = ", ".join(stale[:6]) + (f" and {len(stale) - 6} more" if len(stale) > 6 else "")
        print(f"unvanish: no longer found: {shown}; --write-baseline renews the baseline", file=sys.stderr)
    return excuse(diagnosis, settings.excused, old)
