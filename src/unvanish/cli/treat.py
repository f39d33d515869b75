"""One call of `unvanish.cure`: failures become one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unvanish.cli.errors import CallError, split_crash

if TYPE_CHECKING:
    from unvanish.cli.subject import Subject
    from unvanish.core.cured import Cured


def treat(subject: Subject, batch: Any, loss: Any, **options: Any) -> Cured:
    """The outcome of `unvanish.cure`; CallError on failure."""
    import unvanish
    from unvanish.probes import CheckError, ModelCrash
    from unvanish.surgery.receipt import SurgeryError

    given = {k: v for k, v in subject.options.items() if k == "optimizer"}
    try:
        return unvanish.cure(subject.model, batch, loss, name=subject.name, **given, **options)
    except (CheckError, SurgeryError) as error:
        raise CallError(f"{subject.name}: {error}") from error
    except ModelCrash as error:
        place, reason, trace = split_crash(error)
        raise CallError(f"{subject.name} crashed {place}: {reason}", trace) from error
