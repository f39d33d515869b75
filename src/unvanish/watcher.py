"""`watch`: a training under the same eyes, within a budget, its numbers untouched.

Notable:
- It hangs on the optimizer's own step hooks, so a loop needs no change; every step pays for one fused norm.
- Steps are looked at as often as the budget allows (`pace.py`); between looks the model carries no hook, and
  on a device nothing is waited for: numbers stay there until the next look brings all of them in one
  transfer.
- Gradients are read after the backward and before clipping, a loss scale taken out; sharded and replicated
  ranks add theirs up in one reduction, and the first rank writes.
- What is wrong is said once, after three looks in a row (a NaN at once); then only its last step is kept up
  to date.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unvanish import config
from unvanish.doctor import folded, ranked, visit
from unvanish.pace import Pace
from unvanish.probes.errors import CheckError
from unvanish.probes.intact import WRAPPERS, unwrapped
from unvanish.probes.live import SEEN, Eyes
from unvanish.probes.through_time import Profile
from unvanish.probes.updates import MOVED, Parameters, statistics
from unvanish.registry import rules
from unvanish.response import Response, respond
from unvanish.store import Store
from unvanish.types import Axis, Case, Diagnosis, Finding, Site, Trace

LIVE = (*SEEN, *MOVED)
TIMES = ("state_log", "carry_log")
WINDOW = 64  # looks that rules see
STEPS = 2048  # steps that rules see
PROFILES = 16  # looks from one time profile of the recurrent layers to the next
PATIENCE = 3  # looks in a row before a finding is said


class WatchError(Exception):
    """A finding in a run whose watch was told to raise; `finding` holds it."""

    def __init__(self, text: str, finding: Finding) -> None:
        super().__init__(text)
        self.finding = finding


@dataclass
class Row:
    """One step: numbers, or tensors of one number that are still on the device."""

    step: int
    wall: float
    lr: float
    norm: Any = math.nan  # as the optimizer sees it
    before: Any = math.nan  # before clipping, where it was looked at
    loss: Any = math.nan
    skipped: bool = False

    def numbers(self) -> dict[str, Any]:
        """The row as the store and the rules want it."""
        norm, before = float(self.norm), float(self.before)
        return {
            "step": self.step,
            "wall": self.wall,
            "lr": self.lr,
            "loss": float(self.loss),
            "norm_log": _log(norm),
            "before_log": _log(before),
            "finite": int(math.isfinite(norm)),
            "skipped": int(self.skipped),
            "clipped": math.nan,
        }


@dataclass
class History:
    """The last looks and steps, as rules see them."""

    sites: tuple[Site, ...] = ()
    axes: tuple[Axis, ...] = ()
    looks: list[NDArray[np.float64]] = field(default_factory=list)
    look_steps: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    table: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 9)))  # the rows, as an array
    ceiling: float = math.nan  # the norm that clipping leaves
    profiles: dict[str, tuple[str, Profile]] = field(
        default_factory=dict
    )  # of the recurrent layers, the last ones
    past: NDArray[np.float64] | None = None  # the largest values of looks that are no longer kept

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps; tells which of them were clipped."""
        for row in rows:
            norm, before = math.exp(row["norm_log"]), math.exp(row["before_log"])
            if before == before:
                row["clipped"] = float(norm < 0.999 * before)
                if row["clipped"]:
                    self.ceiling = norm
            elif self.ceiling == self.ceiling and norm == norm:
                row["clipped"] = float(abs(norm / self.ceiling - 1) < 2e-3)
            self.rows.append(row)
        if len(self.rows) > 2 * STEPS:
            del self.rows[:-STEPS]
            self.table = self.table[:0]

    def add_look(self, step: int, values: NDArray[np.float64]) -> None:
        """Append a look."""
        self.looks.append(values)
        self.look_steps.append(step)
        for old in self.looks[:-WINDOW]:
            self.past = old if self.past is None else np.fmax(self.past, old)
        del self.looks[:-WINDOW], self.look_steps[:-WINDOW]

    def trace(self, facts: Mapping[str, Any]) -> Trace:
        """The looks as a Trace; the steps are its fact "history", an array for each column."""
        shape = (0, len(self.sites), len(LIVE))
        values = np.stack(self.looks) if self.looks else np.empty(shape)
        columns = self._columns()
        sites, values = self._with_time(values)
        return Trace(
            sites,
            values,
            self.axes,
            {**facts, "steps": list(self.look_steps), "history": columns, "past": self.past, "live": True},
            (*LIVE, *TIMES),
        )

    def _columns(self) -> dict[str, NDArray[np.float64]]:
        """Every column of the last steps; only rows that are new are converted."""
        names = list((self.rows or [{}])[0])
        fresh = self.rows[len(self.table) :]
        if fresh:
            rows = np.array([[float(r[k]) for k in names] for r in fresh])
            self.table = np.concatenate([self.table, rows]) if len(self.table) else rows
        return {k: self.table[-STEPS:, i] for i, k in enumerate(names)}

    def _with_time(self, values: NDArray[np.float64]) -> tuple[tuple[Site, ...], NDArray[np.float64]]:
        """The sites, one for each time step of the profiles too, and values with the columns `TIMES`."""
        steps = [(n, kind, p, t) for n, (kind, p) in self.profiles.items() for t in range(len(p.state_log))]
        more = tuple(
            Site(name, kind, t, "step", {"of": name, "step": t, "steps": len(p.state_log), "module": name})
            for name, kind, p, t in steps
        )
        shape = (values.shape[0], values.shape[1] + len(more), len(LIVE) + len(TIMES))
        whole = np.full(shape, math.nan)
        whole[:, : values.shape[1], : len(LIVE)] = values
        for row, (_, _, profile, t) in enumerate(steps, values.shape[1]):
            whole[:, row, len(LIVE) :] = profile.state_log[t], profile.carry_log[t]
        return self.sites + more, whole


class Watch:
    """A run under watch; a context manager. `close` detaches it and writes what is left."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Any],
        loss: Any,
        store: Store | None,
        pace: Pace,
        response: Response,
        scaler: Any,
        chosen: frozenset[str],
        settings: Mapping[str, Mapping[str, Any]],
        name: str,
    ) -> None:
        self.model, self.optimizers, self.loss, self.scaler = model, list(optimizers), loss, scaler
        self.pace, self.response, self.store, self.name = pace, response, store, name
        self.findings: list[Finding] = []
        self._inner = unwrapped(model)
        self._compiled = any(type(m).__name__ == "OptimizedModule" for m in (model, *model.modules()))
        self._parameters = Parameters(self._inner, self.optimizers)
        if not self._parameters.parameters:
            raise CheckError(
                "there is nothing to watch: no parameter of the model requires a gradient"
                + (" and is held by the optimizer" if optimizers else "")
            )
        self._eyes = Eyes(self._inner)
        self._eyes.after_backward = None if _replicated(model) or self._parameters.sharded else self._measure
        self._history = History()
        self._chosen, self._settings = chosen, settings
        self._ranks = _ranks()
        last = None if store is None else store.last_step()
        self._step = 0 if last is None else last + 1
        self._first_step = self._step
        self._next = self._step
        self._pending: list[Row] = []
        self._row: Row | None = None
        self._squares: Tensor | None = None
        self._norm: Any = math.nan
        self._looking = self._closed = self._stepped_once = False
        self._stepped: set[int] = set()
        self._ours = 0.0
        self._began = perf_counter()
        self._last = perf_counter()
        self._streaks: dict[str, int] = {}
        self._said: dict[str, tuple[int, int, Finding]] = {}
        self._healthy_step = -1
        self._facts: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._attach()
        self._prepare_next()

    # -- attaching and detaching

    def _attach(self) -> None:
        for optimizer in self.optimizers:
            self._handles.append(optimizer.register_step_pre_hook(lambda o, *_: self._before(o)))
            self._handles.append(optimizer.register_step_post_hook(lambda o, *_: self._after(o)))
        if isinstance(self.loss, nn.Module):
            self._handles.append(self.loss.register_forward_hook(self._loss_seen))
        if self.response.snapshot:
            self._handles.append(
                self._inner.register_forward_pre_hook(self.response.remember, with_kwargs=True)
            )
            if isinstance(self.loss, nn.Module):
                self._handles.append(self.loss.register_forward_pre_hook(self.response.remember_loss))
        if self.scaler is not None:
            self._handles.append(_Scaling(self.scaler, self._skipped))

    def close(self) -> None:
        """Detach everything and write what is left; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._eyes.close()
        for handle in self._handles:
            handle.remove()
        self._resolve(None)
        if self.store is not None:
            self._describe()
            self.store.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    # -- the loop's side

    def step(self, loss: Any = None) -> None:
        """Tell the loss of the step just made; without optimizers, this is what makes a step."""
        self._began = perf_counter()
        if not self.optimizers:
            self._norm = self._total(None)
            self._close_step()
        if self._row is not None and loss is not None:
            self._row.loss = loss.detach() if isinstance(loss, Tensor) else float(loss)
        self._ours += perf_counter() - self._began

    def _loss_seen(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and isinstance(output, Tensor) and output.numel() == 1:
            self._seen_loss = output.detach()

    _seen_loss: Any = math.nan

    # -- around an optimizer's step

    def _before(self, optimizer: Any) -> None:
        self._began = perf_counter()
        if id(optimizer) in self._stepped:  # not every optimizer steps every time
            self._close_step()
        only = (
            {id(p) for g in optimizer.param_groups for p in g["params"]} if len(self.optimizers) > 1 else None
        )
        norm = self._total(only)
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer takes the loss scale out itself
        if isinstance(scale, Tensor):
            norm = norm / scale.to(norm.device) if isinstance(norm, Tensor) else norm / float(scale)
        if self._stepped:
            norm = (_square(self._norm) + _square(norm)) ** 0.5
        self._norm = norm
        if self._looking and self._squares is None:
            self._squares = self._parameters.squares()
        if self._looking and self._eyes.profiling:
            self._through_time()
        if isinstance(norm, float) and not math.isfinite(norm):
            self._nonfinite(optimizer)
        self.response.guard(optimizer)
        self._ours += perf_counter() - self._began

    def _through_time(self) -> None:
        """Follow the gradient through the recurrent layers, while the weights are those it came through."""
        self._eyes.profiling = False
        for name, kind, profile in self._eyes.profiles():
            self._history.profiles[name] = kind, profile
            if self.store is not None and self._leads:
                self.store.profile(self._step, name, profile.state_log)

    def _total(self, only: set[int] | None) -> Any:
        """The gradients' norm: a float on the CPU, a tensor on a device; 0 where there is no gradient."""
        norm = self._parameters.total(only)
        if norm is None:
            return 0.0
        return float(norm) if norm.device.type == "cpu" and not self._parameters.sharded else norm

    def _after(self, optimizer: Any) -> None:
        self._began = perf_counter()
        self._stepped.add(id(optimizer))
        if isinstance(self._norm, float) and self._norm == 0:  # LBFGS makes its gradients within its step
            self._norm = self._total(None)
        if len(self._stepped) >= len(self.optimizers):
            self._close_step()
        self._ours += perf_counter() - self._began

    def _skipped(self, optimizer: Any) -> None:
        """The loss scaler left a step out: its gradients are not finite."""
        self._began = perf_counter()
        self._norm = self._total(None)
        self._close_step(skipped=True)
        self._ours += perf_counter() - self._began

    def _measure(self) -> None:
        """The backward has ended, and nothing has been clipped yet."""
        self._began = perf_counter()
        if self._looking:
            self._squares = self._parameters.squares()
            self._scale = self._loss_scale()
        self._ours += perf_counter() - self._began

    def _loss_scale(self) -> float:
        return float(self.scaler.get_scale()) if self.scaler is not None else 1.0

    _scale = 1.0  # of the gradients, where they were measured before the scaler took it out

    # -- a step's end

    def _close_step(self, skipped: bool = False) -> None:
        if self._row is not None:
            self._pending.append(self._row)
        loss, self._seen_loss = self._seen_loss, math.nan
        self._row = Row(self._step, time.time(), self._rate(), self._norm, math.nan, loss, skipped)
        self._stepped.clear()
        looked = self._looking
        if looked:
            self._look()
        elif isinstance(self._norm, float):
            self._settle()
        if isinstance(self._norm, float) and math.isfinite(self._norm):
            self._healthy_step = self._step
        self._norm = math.nan
        self._time(looked)
        self._step += 1
        self._prepare_next()

    def _time(self, looked: bool) -> None:
        """The step ends here; what is ours from now on belongs to the next."""
        now = perf_counter()
        ours = self._ours + (now - self._began) + self._eyes.seconds * looked
        seconds, self._last, self._ours, self._began = now - self._last, now, 0.0, now
        self._eyes.seconds = 0.0
        if self._stepped_once:
            self.pace.step(ours, seconds, looked)
        self._stepped_once = True  # the first step pays for imports, allocation and compilation

    def _rate(self) -> float:
        rate = self.optimizers[0].param_groups[0].get("lr", math.nan) if self.optimizers else math.nan
        return float(rate) if not isinstance(rate, Tensor) or rate.device.type == "cpu" else math.nan

    def _prepare_next(self) -> None:
        self._looking = self._step >= self._next and not self._closed
        if not self._looking:
            return
        self._squares = None
        self._parameters.hold()
        if not self._compiled:
            self._eyes.profiling = self.pace.looks % PROFILES == 2
            self._eyes.open()

    def _look(self) -> None:
        """Bring in everything a look has seen, and judge it."""
        self._eyes.close()
        squares = self._squares if self._squares is not None else self._parameters.squares()
        block = self._block(squares)
        self._squares, self._scale = None, 1.0
        found = self._resolve(block)
        known = len(self._history.sites)
        if known != len(self._sites()):
            self._chart()
        self._history.add_look(self._step, found)
        if self.store is not None and self._leads:
            self.store.sample(self._step, found)
        self._judge()
        self._next = self._step + self._agreed(self.pace.interval(self._step - self._first_step))

    def _sites(self) -> tuple[Site, ...]:
        chart = self._eyes.chart
        return (chart.sites if chart is not None else ()) + self._parameters.sites

    def _chart(self) -> None:
        """The network has been mapped: its sites have rows from now on."""
        chart = self._eyes.chart
        axes = (chart.axis,) if chart is not None and chart.axis is not None else ()
        self._history = replace(
            self._history, sites=self._sites(), axes=axes, looks=[], look_steps=[], past=None
        )
        if self.store is not None and self._leads:
            self.store.sites(self._history.sites, LIVE)
            self._describe()

    def _block(self, squares: Tensor) -> Tensor:
        """All sites' statistics [site, LIVE], float64 on the device, agreed on by all ranks."""
        changes = self._parameters.changes()
        seen = self._eyes.seen()
        chart = self._eyes.chart
        count = len(chart.sites) if chart is not None else 0
        if self._ranks > 1:
            seen, squares, changes = _summed(seen, squares, changes, self._parameters.sharded, self._ranks)
        before = squares[:, 0].sum().sqrt() / self._scale
        if self._row is not None:
            self._row.before = before
        moved = statistics(squares, changes, self._scale)
        block = torch.full(
            (count + len(moved), len(LIVE)), math.nan, dtype=torch.float64, device=moved.device
        )
        if seen is not None:
            block[:count, : len(SEEN)] = seen.to(block.device)
            block[:count, SEEN.index("backward_log")] -= math.log(self._loss_scale())
        block[count:, len(SEEN) :] = moved
        return block

    def _resolve(self, block: Tensor | None) -> NDArray[np.float64]:
        """Bring the waiting rows and a block over in one transfer."""
        rows = [*self._pending, *([self._row] if self._row is not None and block is None else [])]
        waiting: list[tuple[Row, str]] = []
        current = [self._row] if self._row is not None else []
        for row in {id(r): r for r in (*rows, *current)}.values():
            waiting += [(row, k) for k in ("norm", "before", "loss") if isinstance(getattr(row, k), Tensor)]
        device = block.device if block is not None else torch.device("cpu")
        norms = [getattr(row, k).detach().double().reshape(1).to(device) for row, k in waiting]
        if self._parameters.sharded and self._ranks > 1 and norms:
            norms = list(_over_ranks(torch.cat(norms), [k == "norm" for _, k in waiting])[:, None])
        flat = (
            torch.cat([*norms, *([block.flatten()] if block is not None else [])])
            if norms or block is not None
            else None
        )
        numbers = flat.cpu().numpy() if flat is not None else np.empty(0)
        for (row, key), value in zip(waiting, numbers, strict=False):
            setattr(row, key, float(value))
        self._pending = []
        self._settled(rows)
        rest = numbers[len(waiting) :]
        return rest.reshape(-1, len(LIVE)) if block is not None else rest

    def _settle(self) -> None:
        """On the CPU the rows before the present one are complete."""
        rows, self._pending = self._pending, []
        self._settled(rows)

    def _settled(self, rows: Sequence[Row]) -> None:
        numbers = [row.numbers() for row in rows]
        self._history.add_rows(numbers)
        if self.store is not None and self._leads:
            self.store.steps(numbers)

    @property
    def _leads(self) -> bool:
        return self._ranks == 1 or torch.distributed.get_rank() == 0

    def _agreed(self, interval: int) -> int:
        """The same interval on every rank, the longest of them."""
        if self._ranks == 1:
            return interval
        shared = torch.tensor([interval], device=self._parameters.parameters[0].device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)

    # -- judging

    def _judge(self) -> None:
        """Run the rules that know histories; speak after three looks in a row."""
        trace = self._history.trace(self._live_facts())
        rounds = visit(trace, self._chosen, self._settings, live=True)
        found = {f.code: f for f in reversed(ranked(rounds.findings))}
        for code in [c for c in self._streaks if c not in found]:
            del self._streaks[code]
        for code, finding in found.items():
            self._streaks[code] = self._streaks.get(code, 0) + 1
            patience = 1 if rules()[code].at_once else PATIENCE
            if self._streaks[code] >= patience:
                self._say(finding)

    def _live_facts(self) -> dict[str, Any]:
        return {
            "precision_live": any(s.low for s in self._eyes.chart.slots.values())
            if self._eyes.chart
            else False,
            **self._facts,
        }

    def _say(self, finding: Finding) -> None:
        fresh = finding.code not in self._said
        first = self._step if fresh else self._said[finding.code][0]
        self._said[finding.code] = (first, self._step, finding)
        if self.store is not None and self._leads:
            key = list(self._said).index(finding.code) + 1000 * self._first_step
            self.store.finding(key, first, self._step, finding)
        if fresh:
            self.findings = list(folded(ranked(f for _, _, f in self._said.values())))
            if self._leads:
                respond(self, finding)

    def _nonfinite(self, optimizer: Any) -> None:
        """A gradient is not finite: name it at once, while its weights and batch are still there."""
        if "broken" not in self._facts:
            self._facts["broken"] = {
                "step": self._step,
                "last_healthy": self._healthy_step,
                "gradients": self._parameters.broken(),
                "weights": self._parameters.poisoned(),
                "parameters": len(self._parameters.parameters),
                "loss": float(self._seen_loss),
            }
            trace = self._history.trace(self._live_facts())
            chosen = self._chosen & {"NUM001"}
            for finding in visit(trace, chosen, self._settings, live=True).findings:
                self._say(finding)

    # -- what it says

    @property
    def steps(self) -> int:
        """How many steps were watched."""
        return self._step - self._first_step

    @property
    def overhead(self) -> float:
        """The share of the run's time that the watch took, by its own clock."""
        return self.pace.overhead

    @property
    def healthy(self) -> bool:
        """Whether nothing at or above a warning was found."""
        return all(f.severity == "note" for f in self.findings)

    def diagnosis(self) -> Diagnosis:
        """What was found so far, with the last looks as its trace."""
        trace = self._history.trace(self._live_facts())
        return Diagnosis(tuple(self.findings), trace, subject=self.name, seconds=self.pace.elapsed)

    def _describe(self) -> None:
        assert self.store is not None
        axes = [{"name": a.name, "kind": a.kind, "sites": list(a.sites)} for a in self._history.axes]
        self.store.describe(
            name=self.name,
            model=type(self._inner).__name__,
            parameters=sum(p.numel() for p in self._parameters.parameters),
            optimizers=[type(o).__name__ for o in self.optimizers],
            budget=self.pace.budget,
            every=self.pace.every,
            overhead=self.overhead,
            looks=self.pace.looks,
            python=platform.python_version(),
            torch=torch.__version__,
            axes=axes,
            dropped=self.store.losses.dropped,
        )

    def __repr__(self) -> str:
        found = ", ".join(f.code for f in self.findings) or "nothing found"
        return f"<watch of {self.name}: {self.steps} steps, {self.pace.looks} looks, {found}>"


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
    leads = _ranks() == 1 or torch.distributed.get_rank() == 0
    store = Store(run) if run is not None and leads else None
    return Watch(
        model, optimizers, loss, store, Pace(budget, every), response, scaler, chosen, checked,
        name or type(unwrapped(model)).__name__,
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


class _Scaling:
    """Tells of steps that a GradScaler left out, as a handle to be removed."""

    def __init__(self, scaler: Any, skipped: Callable[[Any], None]) -> None:
        self.scaler, self.original = scaler, scaler.step

        def step(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            made = [False]
            handle = optimizer.register_step_post_hook(lambda *_: made.__setitem__(0, True))
            try:
                return self.original(optimizer, *args, **kwargs)
            finally:
                handle.remove()
                if not made[0]:
                    skipped(optimizer)

        scaler.step = step

    def remove(self) -> None:
        """Give the scaler its own method back."""
        del self.scaler.step


def _replicated(model: nn.Module) -> bool:
    return isinstance(model, WRAPPERS) or _ranks() > 1


def _ranks() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def _summed(
    seen: Tensor | None, squares: Tensor, changes: Tensor | None, sharded: bool, ranks: int
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """One reduction: the mean of what was seen, and the sums of what is sharded."""
    parts = [p for p in (seen, squares, changes) if p is not None]
    flat = torch.cat(
        [
            torch.nan_to_num(p.to(squares.device), nan=0.0, posinf=1e300, neginf=-1e300).flatten()
            for p in parts
        ]
    )
    torch.distributed.all_reduce(flat)
    cut = torch.tensor([p.numel() for p in parts]).cumsum(0).tolist()
    pieces = [flat[end - p.numel() : end].reshape(p.shape) for end, p in zip(cut, parts, strict=True)]
    if seen is not None:
        missing = seen.isnan().to(squares.device)
        pieces[0] = torch.where(missing, math.nan, pieces[0] / ranks)
    weight = 1.0 if sharded else 1.0 / ranks
    rest = [p * weight for p in pieces[1 if seen is not None else 0 :]]
    return (pieces[0] if seen is not None else None), rest[0], (rest[1] if changes is not None else None)


def _over_ranks(values: Tensor, shards: list[bool]) -> Tensor:
    """Norms of shards, joined over the ranks; the others as they are."""
    mask = torch.tensor(shards, device=values.device)
    squares = torch.where(mask, values.square(), 0.0)
    torch.distributed.all_reduce(squares)
    return torch.where(mask, squares.sqrt(), values)


def _square(value: Any) -> Any:
    return 0.0 if isinstance(value, float) and math.isnan(value) else value * value


def _log(value: float) -> float:
    if not math.isfinite(value):
        return value
    return math.log(value) if value > 0 else -math.inf
