"""The watch itself: it hangs on the optimizers' own step hooks and times itself.

Notable:
- A loop needs no change; every step pays for the norm of its gradients (`probes.gauge`).
- Steps are looked at as often as the budget allows (`pace`); between looks the model carries no hook, and
  on a device nothing is waited for.
- Gradients are read after the backward and before clipping, a loss scale taken out; sharded and replicated
  ranks add theirs up in one reduction, and the first rank writes.
- What is wrong is said once, after three looks in a row (a NaN at once); then only its last step is kept up
  to date.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.clinic.watch.chronicle import Chronicle
from unvanish.clinic.watch.history import Row
from unvanish.clinic.watch.looks import block
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.ranks import agreed, leads, ranks, replicated
from unvanish.clinic.watch.response import Response, respond
from unvanish.clinic.watch.scaling import Scaling
from unvanish.clinic.watch.verdicts import Verdicts
from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.facts import TraceFacts
from unvanish.core.trace import Site
from unvanish.probes.errors import CheckError
from unvanish.probes.intact import unwrap
from unvanish.probes.live.eyes import Eyes
from unvanish.probes.live.gauge import Gauge
from unvanish.probes.live.updates import Parameters
from unvanish.store import Store

PROFILES = 16  # looks from one time profile of the recurrent layers to the next
READING = 0.6  # of the budget, for the norm of every step


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
        self._inner = unwrap(model)
        self._compiled = any(type(m).__name__ == "OptimizedModule" for m in (model, *model.modules()))
        self._parameters = Parameters(self._inner, self.optimizers)
        if not self._parameters.parameters:
            raise CheckError(
                "there is nothing to watch: no parameter of the model requires a gradient"
                + (" and is held by the optimizer" if optimizers else "")
            )
        self._gauges: dict[int | None, Gauge] = {}
        self._eyes = Eyes(self._inner)
        self._ranks = ranks()
        self._chronicle = Chronicle(store, self._ranks, self._parameters.sharded)
        self._eyes.after_backward = None if replicated(model) or self._parameters.sharded else self._measure
        last = None if store is None else store.last_step()
        self._step = self._first_step = self._next = 0 if last is None else last + 1
        self._verdicts = Verdicts(chosen, settings, self._first_step)
        self._squares: Tensor | None = None
        self._norm: Any = math.nan
        self._exact = True
        self._looking = self._closed = self._stepped_once = False
        self._stepped: set[int] = set()
        self._ours = 0.0
        self._began = self._last = perf_counter()
        self._healthy_step = -1
        self._facts: TraceFacts = {}
        self._handles: list[Any] = []
        self._attach()
        self._prepare_next()

    # -- attaching and detaching

    def _attach(self) -> None:
        for optimizer in self.optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before))
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
            self._handles.append(Scaling(self.scaler, self._skipped))

    def close(self) -> None:
        """Detach everything and write what is left; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._eyes.close()
        for handle in self._handles:
            handle.remove()
        self._chronicle.bring(None)
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
        if self._chronicle.row is not None and loss is not None:
            self._chronicle.row.loss = loss.detach() if isinstance(loss, Tensor) else float(loss)
        self._ours += perf_counter() - self._began

    def _loss_seen(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and isinstance(output, Tensor) and output.numel() == 1:
            self._seen_loss = output.detach()

    _seen_loss: Any = math.nan

    # -- around an optimizer's step

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._began = perf_counter()
        if id(optimizer) in self._stepped:  # not every optimizer steps every time
            self._close_step()
        self._inside = any(map(callable, args[1:])) or kwargs.get("closure") is not None
        if not self._inside:
            self._note(optimizer)
            if self._looking and self._squares is None:
                self._squares = self._parameters.squares()
            if self._looking and self._eyes.profiling:
                self._through_time()
        self.response.guard(optimizer)
        self._ours += perf_counter() - self._began

    _inside = False  # whether the gradients are made within the optimizer's step, by a closure

    def _note(self, optimizer: Any) -> None:
        """Read the norm that the optimizer steps by, and name what is not finite while it is there."""
        norm = self._total(optimizer if len(self.optimizers) > 1 else None)
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer takes the loss scale out itself
        if isinstance(scale, Tensor):
            norm = norm / scale.to(norm.device) if isinstance(norm, Tensor) else norm / float(scale)
        if self._stepped:
            norm = (_square(self._norm) + _square(norm)) ** 0.5
        self._norm = norm
        if isinstance(norm, float) and not math.isfinite(norm):
            self._nonfinite()

    def _through_time(self) -> None:
        """Follow the gradient through the recurrent layers, while the weights are those it came through."""
        self._eyes.profiling = False
        for name, kind, profile in self._eyes.profiles():
            self._chronicle.profile(self._step, name, kind, profile)

    def _total(self, optimizer: Any) -> Any:
        """The gradients' norm: a float on the CPU, a tensor on a device; 0 where there is no gradient."""
        key = None if optimizer is None else id(optimizer)
        gauge = self._gauges.get(key)
        if gauge is None:
            only = None if optimizer is None else [p for g in optimizer.param_groups for p in g["params"]]
            gauge = self._gauges[key] = self._parameters.gauge(only)
            gauge.whole |= self.response.clipper is not None or self._ranks > 1  # ranks must agree
        if self.pace.quiet and self.pace.steps % 16 == 0:
            gauge.fit(READING * self.pace.budget * self.pace.usual / max(1, len(self.optimizers)))
        norm = gauge.read(full=self._looking)
        self._exact &= gauge.exact
        return 0.0 if norm is None else norm

    def _after(self, optimizer: Any) -> None:
        self._began = perf_counter()
        if self._inside:
            self._note(optimizer)
        self._stepped.add(id(optimizer))
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
        loss, self._seen_loss = self._seen_loss, math.nan
        row = Row(self._step, time.time(), self._rate(), self._norm, math.nan, loss, skipped, self._exact)
        self._chronicle.begin(row)
        self._exact = True
        self._stepped.clear()
        looked = self._looking
        if looked:
            self._look()
        elif isinstance(self._norm, float):
            self._chronicle.settle()
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
        row = self._chronicle.row
        assert row is not None
        row.before, numbers = block(
            self._eyes, self._parameters, squares, self._scale, self._loss_scale(), self._ranks
        )
        self._squares, self._scale = None, 1.0
        found = self._chronicle.bring(numbers)
        if len(self._chronicle.history.sites) != len(self._sites()):
            self._chart()
        self._chronicle.look(self._step, found)
        trace = self._chronicle.history.trace(self._live_facts())
        self._answer(self._verdicts.judge(trace, self._step, self._chronicle.writer))
        interval = self.pace.interval(self._step - self._first_step)
        self._next = self._step + agreed(interval, self._ranks, self._parameters.parameters[0].device)

    def _sites(self) -> tuple[Site, ...]:
        chart = self._eyes.chart
        return (chart.sites if chart is not None else ()) + self._parameters.sites

    def _chart(self) -> None:
        """The network has been mapped."""
        chart = self._eyes.chart
        self._chronicle.chart(
            self._sites(), (chart.axis,) if chart is not None and chart.axis is not None else ()
        )
        if self._chronicle.writer is not None:
            self._describe()

    # -- judging

    def _live_facts(self) -> TraceFacts:
        return {
            "precision_live": any(s.low for s in self._eyes.chart.slots.values())
            if self._eyes.chart
            else False,
            **self._facts,
        }

    def _answer(self, fresh: Sequence[Finding]) -> None:
        """Do what was asked for with new findings; what raises comes last."""
        if leads(self._ranks):
            for finding in sorted(fresh, key=lambda f: f.severity != "note"):
                respond(self.response, finding, self._inner, self._step, self.loss)

    def _nonfinite(self) -> None:
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
            trace = self._chronicle.history.trace(self._live_facts())
            self._answer(self._verdicts.at_once("NUM001", trace, self._step, self._chronicle.writer))

    # -- what it says

    @property
    def findings(self) -> list[Finding]:
        """What was said so far, consequences under their causes."""
        return self._verdicts.findings

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
        trace = self._chronicle.history.trace(self._live_facts())
        return Diagnosis(tuple(self.findings), trace, subject=self.name, seconds=self.pace.elapsed)

    def _describe(self) -> None:
        assert self.store is not None
        axes = self._chronicle.history.axes
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
            axes=[{"name": a.name, "kind": a.kind, "sites": list(a.sites)} for a in axes],
            dropped=self.store.losses.dropped,
        )

    def __repr__(self) -> str:
        found = ", ".join(f.code for f in self.findings) or "nothing found"
        return f"<watch of {self.name}: {self.steps} steps, {self.pace.looks} looks, {found}>"


def _square(value: Any) -> Any:
    return 0.0 if isinstance(value, float) and math.isnan(value) else value * value
