"""One call of `unvanish.check`: assumptions go into the diagnosis, failures become one line."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from unvanish.cli.errors import CallError, split_crash

if TYPE_CHECKING:
    from unvanish.cli.subject import Subject
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis


def examine(
    subject: Subject, batch: Any, loss: Any, settings: Config, assumed: tuple[str, ...] = (), **options: Any
) -> Diagnosis:
    """Check a subject; findings have lines, facts the assumptions. CallError on failure."""
    import unvanish
    from unvanish.clinic.code_lines import locate
    from unvanish.probes import CheckError, ModelCrash

    chosen: dict[str, Any] = {"ignore": settings.ignore or None, "settings": settings.settings or None}
    chosen = {key: value for key, value in {**chosen, "select": settings.select}.items() if value is not None}
    given = {**subject.options, **chosen, **options}
    try:
        found: Diagnosis = unvanish.check(subject.model, batch, loss, name=subject.name, **given)
    except CheckError as error:
        raise CallError(f"{subject.name}: {error}{_assuming(assumed)}") from error
    except ModelCrash as error:
        place, reason, trace = split_crash(error)
        raise CallError(f"{subject.name} crashed {place}: {reason}{_assuming(assumed)}", trace) from error
    facts = found.trace.facts.copy()
    facts["assumptions"] = [*facts.get("assumptions", ()), *assumed]
    found = dataclasses.replace(found, trace=dataclasses.replace(found.trace, facts=facts))
    return locate(found, subject.model, loss, subject.origin)


def _assuming(assumed: tuple[str, ...]) -> str:
    return f" (assumed: {'; '.join(assumed)})" if assumed else ""
