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
        raise CallError(f"{subject.name}: {error}{list_assumed(assumed)}") from error
    except ModelCrash as error:
        place, reason, trace = split_crash(error)
        raise CallError(f"{subject.name} crashed {place}: {reason}{list_assumed(assumed)}", trace) from error
    return locate(note_assumed(found, assumed), subject.model, loss, subject.origin)


def note_assumed(diagnosis: Diagnosis, assumed: tuple[str, ...]) -> Diagnosis:
    """The diagnosis with what the call assumed among its facts."""
    facts = diagnosis.trace.facts.copy()
    facts["assumptions"] = [*facts.get("assumptions", ()), *assumed]
    return dataclasses.replace(diagnosis, trace=dataclasses.replace(diagnosis.trace, facts=facts))


def list_assumed(assumed: tuple[str, ...]) -> str:
    """The same at the end of an error's line."""
    return f" (assumed: {'; '.join(assumed)})" if assumed else ""
