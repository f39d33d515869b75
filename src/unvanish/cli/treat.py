"""One call of `unvanish.cure`: assumptions go into the first diagnosis, failures become one line."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from unvanish.cli.errors import CallError, split_crash

if TYPE_CHECKING:
    from unvanish.cli.subject import Subject
    from unvanish.core.cured import Cured


def treat(subject: Subject, batch: Any, loss: Any, assumed: tuple[str, ...] = (), **options: Any) -> Cured:
    """The outcome of `unvanish.cure`; CallError on failure."""
    import unvanish
    from unvanish.cli.examine import list_assumed, note_assumed
    from unvanish.probes import CheckError, ModelCrash
    from unvanish.surgery.receipt import SurgeryError

    given = {k: v for k, v in subject.options.items() if k == "optimizer"}
    try:
        cured = unvanish.cure(subject.model, batch, loss, name=subject.name, **given, **options)
    except (CheckError, SurgeryError) as error:
        raise CallError(f"{subject.name}: {error}{list_assumed(assumed)}") from error
    except ModelCrash as error:
        place, reason, trace = split_crash(error)
        raise CallError(f"{subject.name} crashed {place}: {reason}{list_assumed(assumed)}", trace) from error
    return dataclasses.replace(cured, before=note_assumed(cured.before, assumed))
