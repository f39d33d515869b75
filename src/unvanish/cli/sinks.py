"""`--to`: the sinks that a record goes to, named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.store import Run


def read_sinks(to: Sequence[str] | None) -> dict[str, Any]:
    """The sinks by their names; CallError for what is none, or lacks its library. Nothing is opened."""
    if not to:
        return {}
    from unvanish.clinic.watch import sinks
    from unvanish.probes import CheckError

    try:
        return sinks.read_sinks(list(to))
    except CheckError as error:
        raise CallError(f"--{error}") from error


def retell_run(run: Run, name: str, sink: Any) -> int:
    """Tell a sink a run that was recorded; how many steps it has. CallError if the sink fails."""
    from unvanish.clinic.watch.feeds import draw_run
    from unvanish.clinic.watch.telling import retell
    from unvanish.core.caution import summarize
    from unvanish.store import StoreError
    from unvanish.store.parts import DAMAGED

    facts = run.facts()
    try:
        sink.open({"name": run.name, "model": facts.get("model"), "folder": None})
        count = retell(run, sink)
        if sink.draws and (png := draw_run(run.folder)) is not None:
            sink.picture(run.last_step() or 0, "run", png)
        sink.close()
    except (StoreError, *DAMAGED):
        raise
    except Exception as error:
        raise CallError(f"--to {name}: {summarize(error)}") from error
    return count
