"""`watch` and `rehearse`: what is asked for, checked and turned into a `Watch`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unvanish.clinic import config
from unvanish.clinic.watch.observer import Watch
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.ranks import leads, ranks
from unvanish.clinic.watch.response import Response
from unvanish.core.diagnosis import Case, Diagnosis
from unvanish.probes.errors import CheckError
from unvanish.probes.intact import unwrap
from unvanish.rules import rules
from unvanish.store import Store


def watch(
    model: nn.Module,
    optimizer: Any = None,
    loss: Any = None,
    *,
    run: str | Path | None = None,
    budget: float = 0.01,
    every: int | None = None,
    on_finding: Any = "log",
    scaler: Any = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
) -> Watch:
    """Watch a training: what `check` sees, at as many steps as fit into `budget` (a share of the run's time).

    `optimizer`: one or several; their step hooks do the rest, so the loop stays as it is. Without one, call
    `.step(loss)` after every step. `loss`: a loss module whose value is noted (or tell it by `.step(loss)`).
    `run`: the folder to write into, continued where it exists. `every`: look at every so many steps instead.
    `on_finding`: "log", "warn", "raise", "snapshot" (of the bad step), "guard" (leaves non-finite steps out,
    clips by ZClip; "guard-agc": by AGC), a function of the finding, or several of these.
    `scaler`: the GradScaler in use. CheckError where the arguments do not fit together; StoreError where the
    folder cannot be used.
    """
    if not isinstance(model, nn.Module):
        raise CheckError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    optimizers = (
        list(optimizer) if isinstance(optimizer, (list, tuple)) else [] if optimizer is None else [optimizer]
    )
    for one in optimizers:
        if not isinstance(getattr(one, "param_groups", None), list):
            raise CheckError(
                f"optimizer is a {type(one).__name__}, not a torch optimizer; pass the optimizer itself"
            )
    if not 0 < budget <= 1:
        raise CheckError(
            f"budget is {budget}; it is a share of the run's time, above 0 and at most 1 (0.01: 1 %)"
        )
    if every is not None and every < 1:
        raise CheckError(f"every is {every}; give the number of steps between two looks, 1 or more")
    chosen = frozenset(config.selected(rules(), select, ignore))
    checked = config.checked_settings(settings or {})
    response = Response.of(on_finding, run)
    store = Store(run) if run is not None and leads(ranks()) else None
    return Watch(
        model, optimizers, loss, store, Pace(budget, every), response, scaler, chosen, checked,
        name or type(unwrap(model)).__name__,
    )  # fmt: skip


def rehearse(case: Case, *, every: int = 1, seed: int = 0, **options: Any) -> Diagnosis:
    """Train a case that says how (`options["training"]`) on its one batch, under watch; what was found.

    Its settings: `optimizer`, a function of the model; `steps`; `clip`, a norm; `event(step, model,
    optimizer)` before a step; `scale(step, model, optimizer)`, a factor on the batch. The case's model is
    trained.
    """
    plan = dict(case.options["training"])
    optimizer = plan["optimizer"](case.model)
    x, y = case.batch
    with (
        torch.random.fork_rng(devices=[]),
        watch(case.model, optimizer, every=every, on_finding="silent", **options) as eyes,
    ):
        torch.manual_seed(seed)
        for step in range(plan["steps"]):
            plan.get("event", _nothing)(step, case.model, optimizer)
            optimizer.zero_grad()
            value = case.loss(case.model(x * plan.get("scale", _one)(step, case.model, optimizer)), y)
            value.backward()
            if "clip" in plan:
                torch.nn.utils.clip_grad_norm_(case.model.parameters(), plan["clip"])
            optimizer.step()
            eyes.step(value)
    return eyes.diagnosis()


def _nothing(*_: Any) -> None:
    return None


def _one(*_: Any) -> float:
    return 1.0
