"""One call of `unvanish.check`: what was assumed goes in, what went wrong comes out as one line."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from unvanish.cli.errors import CallError, own_traceback, told

if TYPE_CHECKING:
    from unvanish.cli.subject import Subject
    from unvanish.clinic.config import Config
    from unvanish.core.diagnosis import Diagnosis


def examined(
    subject: Subject, batch: Any, loss: Any, settings: Config, assumed: tuple[str, ...] = (), **options: Any
) -> Diagnosis:
    """The diagnosis of a subject, with what was assumed among its facts; CallError where there is none."""
    import unvanish
    from unvanish.probes import CheckError, ModelCrash

    chosen: dict[str, Any] = {"ignore": settings.ignore or None, "settings": settings.settings or None}
    chosen = {key: value for key, value in {**chosen, "select": settings.select}.items() if value is not None}
    given = {**subject.options, **chosen, **options}
    try:
        found: Diagnosis = unvanish.check(subject.model, batch, loss, name=subject.name, **given)
    except CheckError as error:
        raise CallError(f"{subject.name}: {error}{_assuming(assumed)}") from error
    except ModelCrash as error:
        cause = error.__cause__ or error
        place = f"in {error.site}" if error.site else "in the model"
        raise CallError(
            f"{subject.name} crashed {place}: {told(cause)}{_assuming(assumed)}", own_traceback(cause)
        ) from error
    facts = found.trace.facts.copy()
    facts["assumptions"] = [*facts.get("assumptions", ()), *assumed]
    return dataclasses.replace(found, trace=dataclasses.replace(found.trace, facts=facts))


def _assuming(assumed: tuple[str, ...]) -> str:
    return f" (assumed: {'; '.join(assumed)})" if assumed else ""
