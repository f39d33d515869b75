"""Whether a model trains alone: forward, loss and backward as its user writes them, with nothing of ours."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from unvanish.probes import calls
from unvanish.probes.backward import pull
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.intact import intact
from unvanish.probes.passes import Specimen
from unvanish.probes.run_forward import check_scalar


@contextmanager
def as_it_runs(force_eager: bool = False) -> Iterator[None]:
    """Gradients are on, whatever the caller set; nothing else is changed."""
    loaded = force_eager and "torch._dynamo" in sys.modules
    stance: Any = torch.compiler.set_stance("force_eager") if loaded else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), stance:
        yield


def require_alone(specimen: Specimen, parts: Iterable[nn.Module], failed: Exception) -> None:
    """Raise the crash of a model that does not train alone either; its cause is the model's own exception.

    `failed`: what its examination raised.
    """
    with intact(specimen.model, parts), as_it_runs():
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
        loss = check_scalar(call.objective(specimen.model(*call.args, **call.kwargs)))
        if loss.requires_grad:
            pull(loss, [p for p in specimen.parameters.values() if p.requires_grad])
    except CheckError:
        raise
    except Exception as error:
        return error
    return None


def _is_same(a: BaseException | None, b: BaseException) -> bool:
    return type(a) is type(b) and str(a) == str(b)
