"""What a watch says of itself: in the run's folder, and aloud if it saw nothing."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch

from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.ranks import Company
from unvanish.clinic.watch.watched import Watched
from unvanish.store.records import Records


def describe_run(
    writer: Records, watched: Watched, pace: Pace, axes: Sequence[Any], notes: list[str]
) -> None:
    """Write what was watched, how, and on what."""
    writer.describe(
        name=watched.name,
        model=type(watched.inner).__name__,
        parameters=sum(p.numel() for p in watched.parameters.parameters),
        optimizers=[type(o).__name__ for o in watched.optimizers],
        budget=pace.budget,
        every=pace.every,
        overhead=pace.overhead,
        looks=pace.looks,
        python=platform.python_version(),
        torch=torch.__version__,
        axes=[{"name": a.name, "kind": a.kind, "sites": list(a.sites)} for a in axes],
        notes=list(notes),
    )


def describe_unseen(watched: Watched, steps: int, heard: bool, charted: bool) -> str:
    """What to give `watch` if it saw no step, or no forward; empty if it saw them.

    `heard`: a backward of the process; `charted`: a forward of the model, or it is said why not.
    """
    if not steps and not watched.references and heard:
        return (
            f"no step of {watched.name} was seen: no optimizer that holds its parameters made one; give "
            "`watch` the optimizer that does, or call `.step(loss)` after every step"
        )
    if not steps and heard:
        return f"backwards were made, and no step of {watched.name}: its optimizer's step() was not called"
    if steps and not charted:
        return (
            f"in {steps} steps no forward of {watched.name} in training mode was seen, so only its "
            "parameters were watched; give `watch` the module that the loop calls, as in model(x)"
        )
    return ""


def find_company(watched: Watched, company: Company) -> str:
    """Why a process is not examined by itself; empty if it is alone."""
    if company.exchange is not None or not watched.alone or watched.ranks > 1:
        return "several processes train together"
    return ""
