"""`watch` and `rehearse`: what is asked for is checked and turned into a `Watch`."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unvanish.clinic.arguments import require_flag, require_number, require_path, require_text
from unvanish.clinic.check import require_optimizer
from unvanish.clinic.rounds import choose_rules
from unvanish.clinic.watch.front import Watch, close_all
from unvanish.clinic.watch.observer import Observer
from unvanish.clinic.watch.optimizers import unwrap_optimizer
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.ranks import Company, join_company, own_rank
from unvanish.clinic.watch.response import Response
from unvanish.clinic.watch.sinks import open_feeds, read_sinks
from unvanish.clinic.watch.watched import Watched
from unvanish.core.diagnosis import Case, Diagnosis
from unvanish.core.plain import name_value
from unvanish.core.sink import PREFIX
from unvanish.probes.errors import CheckError
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.shards import is_shard
from unvanish.store.opened import close_since, list_opened

FLAT = "FSDP1 keeps flat shards: their norms are averaged over the ranks, no snapshots are kept"


def watch(
    model: nn.Module,
    optimizer: Any = None,
    loss: Any = None,
    *,
    run: str | Path | None = None,
    start: int | None = None,
    budget: float = 0.01,
    every: int | None = None,
    on_finding: Any = "log",
    scaler: Any = None,
    critical: bool = False,
    compiled: bool | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
    to: Any = None,
) -> Watch:
    """Watch a training: what `check` sees, at as many steps as fit into `budget` (a share of the run's time).

    `optimizer`: one or several; their step hooks do the rest, so the loop stays as it is. Without one, those
    that hold parameters of the model are found when they step; if none does, call `.step(loss)` after every
    step. `loss`: a loss module whose value is noted; without one it is read where the backward begins.
    `run`: the folder to write into; an existing run is continued, after its last step or, if your program
    resumes from a checkpoint, at step `start`: rows from there on are taken back. `every`: look at every
    `every`-th step instead of by budget.
    `on_finding`: "log", "warn", "raise", "snapshot" (of the bad step), "guard" (leaves non-finite steps out,
    clips by ZClip; "guard-agc": by AGC), a function of the finding, or several of these.
    `scaler`: the GradScaler in use. `critical`: at looks, try how far the step is from the critical one.
    `compiled`: whether to look into the graphs of a compiled model; unasked, where no bit changes by it.
    `to`: where the record goes besides: "tensorboard", "wandb", "jsonl:path" ..., your open run, or several.
    A watch ends no run: what fails inside it is a warning, and it takes itself off. CheckError if the
    arguments do not fit together; StoreError if the folder cannot be used.
    """

    def build(guard: WatchGuard) -> Observer:
        if not isinstance(model, nn.Module):
            raise CheckError(f"model is a {type(model).__name__}, not a torch.nn.Module")
        optimizers = _read_optimizers(optimizer)
        require_number("budget", budget, "share")
        _require_kinds(every=every, start=start, name=name, critical=critical, run=run, scaler=scaler)
        require_flag(compiled=False if compiled is None else compiled)
        pace = Pace(float(budget), None if every is None else int(every))
        choice = choose_rules(select, ignore, settings)
        response = Response.of(on_finding, run, own_rank(), sharded=any(map(is_shard, model.parameters())))
        if response.clipper is not None:
            _refuse_guard(optimizers)
        watched = Watched.of(model, optimizers, loss, scaler, name, compiled)
        if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
            guard.note(FLAT)
            response = replace(response, snapshots=None)
        company = _join_company(watched, run, None if start is None else int(start), to, guard)
        try:
            return Observer(guard, watched, pace, response, company, choice, bool(critical))
        except BaseException:
            company.close()
            raise

    return _open(name if isinstance(name, str) and name else type(model).__name__, build)


def _open(name: str, build: Callable[[WatchGuard], Observer]) -> Watch:
    """A watch; if it fails, what it had opened and nobody came to hold is closed."""
    clearing, watching = WatchGuard("the opening of a watch"), None
    opened = clearing.run(list_opened)
    try:
        watching = Watch(name, build)
    finally:
        if opened is not None and (watching is None or watching.guard.failure):
            clearing.run_anyway(close_since, opened)
    return watching


def require_options(
    *,
    run: str | Path | None = None,
    start: int | None = None,
    budget: float = 0.01,
    every: int | None = None,
    on_finding: Any = "log",
    critical: bool = False,
    compiled: bool | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
    to: Any = None,
) -> None:
    """Raise what `watch` would raise for these of its arguments, before there is a model."""
    require_number("budget", budget, "share")
    _require_kinds(every=every, start=start, name=name, critical=critical, run=run, scaler=None)
    require_flag(compiled=False if compiled is None else compiled)
    choose_rules(select, ignore, settings)
    read_sinks(to)
    Response.of(on_finding, run)


def _join_company(
    watched: Watched, run: str | Path | None, start: int | None, to: Any, guard: WatchGuard
) -> Company:
    """What keeps the record, and where it goes besides; CheckError first, if `to` is no sink."""
    sinks = read_sinks(to) if own_rank() == 0 else {}
    company = join_company(watched.parameters, run, start, guard)
    if not sinks:
        return company
    kind = type(watched.inner).__name__
    prefix = PREFIX if watched.name == kind else f"{PREFIX}/{watched.name}"
    about = {"name": watched.name, "model": kind, "folder": run, "prefix": prefix}
    try:
        feeds = open_feeds(sinks, about)
    except BaseException:
        company.close()
        raise
    atexit.unregister(close_all)  # the last one comes first: before the ends of the libraries just opened
    atexit.register(close_all)
    return replace(company, feeds=feeds)


def _refuse_guard(optimizers: Iterable[Any]) -> None:
    """CheckError if a guard would do harm."""
    if any(type(o).__name__ == "LBFGS" for o in optimizers):
        raise CheckError(
            "on_finding='guard' cannot be used with LBFGS: it compares the gradients of one step with each "
            "other, and clipped ones would mislead its search; leave the guard out"
        )


def _require_kinds(*, every: Any, start: Any, name: Any, critical: Any, run: Any, scaler: Any) -> None:
    """CheckError if an argument is of another kind."""
    for word, value in (("every", every), ("start", start)):
        if value is not None:
            require_number(word, value)
    require_text(name=name)
    require_flag(critical=critical)
    require_path(run=run)
    if scaler is not None and not callable(getattr(scaler, "get_scale", None)):
        raise CheckError(
            f"scaler is {name_value(scaler)}, not a torch.amp.GradScaler; leave it out without one"
        )


def _read_optimizers(optimizer: Any) -> list[Any]:
    """One or several optimizers as a list, without wrappers; CheckError if one is something else."""
    if optimizer is None:
        return []
    given = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    optimizers = [unwrap_optimizer(one) for one in given]
    for one in optimizers:
        require_optimizer(one)
        if not hasattr(one, "register_step_pre_hook") or not hasattr(one, "register_step_post_hook"):
            raise CheckError(
                f"optimizer is a {type(one).__name__} without step hooks; give the torch optimizer inside "
                "it, or none, and call `.step(loss)` of the watch after every step"
            )
    return optimizers


def rehearse(case: Case, *, every: int = 1, seed: int = 0, **options: Any) -> Diagnosis:
    """Train a case on its one batch, under watch, as its `options["training"]` describe; what was found.

    Its settings: `optimizer`, a function of the model; `steps`; `clip`, a norm; `event(step, model,
    optimizer)` before a step; `scale(step, model, optimizer)`, a factor on the batch; `every`, steps from one
    look to the next. The case's model is trained.
    """
    plan = dict(case.options["training"])
    optimizer = plan["optimizer"](case.model)
    x, y = case.batch
    with (
        torch.random.fork_rng(devices=[]),
        watch(
            case.model, optimizer, every=plan.get("every", every), on_finding="silent", **options
        ) as watching,
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
            watching.step(value)
    return watching.diagnosis()


def _nothing(*_: Any) -> None:
    return None


def _one(*_: Any) -> float:
    return 1.0
