"""Whether a model trains alone: forward, loss and backward as its user writes them, with nothing of ours."""

from __future__ import annotations

from unvanish.probes import calls
from unvanish.probes.backward import pull
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.intact import intact
from unvanish.probes.passes import Specimen
from unvanish.probes.run_forward import check_scalar
from unvanish.probes.shared_changes import QUIET


def require_alone(specimen: Specimen, failed: Exception) -> None:
    """Raise the crash of a model that does not train alone either; its cause is the model's own exception.

    `failed`: what its examination raised.
    """
    with intact(specimen.model, specimen.batch, specimen.loss, off=QUIET) as kept, kept:
        own = _find_failure(specimen)
    if own is None:
        return
    if isinstance(failed, ModelCrash) and _is_same(failed.__cause__, own):
        raise failed
    text = f"the model does not train alone: {type(own).__name__}: {own}"
    raise ModelCrash(text, getattr(failed, "site", ""), getattr(failed, "trace", None)) from own


def _find_failure(specimen: Specimen) -> Exception | None:
    """What one forward and backward raise; None if they do not."""
    try:
        call = calls.prepare(specimen.batch, specimen.loss, gradients=False)
        loss = check_scalar(call.objective(call.run(specimen.model)))
        if loss.requires_grad:
            pull(loss, [p for p in specimen.parameters.values() if p.requires_grad])
    except CheckError:
        raise
    except Exception as error:
        return error
    return None


def _is_same(a: BaseException | None, b: BaseException) -> bool:
    return type(a) is type(b) and str(a) == str(b)
