"""Random training loops, each run without a watch and with one: the same bits, or it is a fault.

Run it by hand: `python -m tests.fuzz.loops --count 300 --seed 0`; `--only SEED` repeats one loop and says
what it is made of. A loop is drawn from its seed alone: a network, an optimizer or several, a schedule,
clipping, accumulation, a scaler, autocast, closures, frozen parts, copies that follow, exceptions that the
loop catches, evaluations, states that are saved and loaded; and the options of the watch.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import pickle
import random
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tests.fuzz.nets import CLASSES, OPTIMIZERS, SCHEDULES, draw_model
from torch import Tensor, nn

import unvanish


@dataclass
class Plan:
    """One loop, drawn from its seed."""

    seed: int
    optimizer: str = ""
    schedule: str = ""
    steps: int = 8
    habits: set[str] = field(default_factory=set)
    look: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """The loop of a seed."""
        rng = random.Random(seed)
        plan = cls(seed, rng.choice(list(OPTIMIZERS)), rng.choice(["", *SCHEDULES]), rng.randint(4, 14))
        chances = {
            "loss module": 0.5, "autocast": 0.25, "scaler": 0.25, "accumulate": 0.25, "clip": 0.3,
            "clip value": 0.1, "evaluate": 0.4, "inference": 0.2, "copy": 0.3, "pickle": 0.2, "save": 0.3,
            "freeze": 0.2, "add group": 0.15, "two optimizers": 0.2, "catch forward": 0.2,
            "catch backward": 0.2, "zero": 0.15, "none": 0.1, "poison": 0.15, "retain": 0.1, "penalty": 0.15,
            "user hooks": 0.25, "tell": 0.4, "by hand": 0.08, "skip step": 0.15, "replace": 0.1,
            "train twice": 0.1, "set rate": 0.2, "interrupt": 0.1, "numpy": 0.3, "unclosed": 0.2,
            "anomaly": 0.05,
        }  # fmt: skip
        plan.habits = {habit for habit, chance in chances.items() if rng.random() < chance}
        ways = [w for w in ("log", "warn", "snapshot", "function") if rng.random() < 0.3] or ["silent"]
        plan.look = {"on_finding": ways, "run": "snapshot" in ways or rng.random() < 0.3}
        plan.look |= rng.choice([{"every": 1}, {"every": 2}, {"every": 5}, {"budget": 0.01}, {"budget": 1.0}])
        return plan


class Mine(Exception):
    """What the loop raises and catches itself."""


class Loop:
    """One run of a plan, watched or not; `trail` is all that must be the same."""

    def __init__(self, plan: Plan, folder: str | None) -> None:
        self.plan, self.trail, self.held = plan, [], {}  # type: ignore[var-annotated]
        random.seed(plan.seed)
        np.random.seed(plan.seed)
        torch.manual_seed(plan.seed)
        self.rng = random.Random(plan.seed + 1)
        self.model = draw_model(self.rng)
        self.loss = nn.CrossEntropyLoss() if self.has("loss module") else nn.functional.cross_entropy
        self.average = copy.deepcopy(self.model)
        self.optimizers = self._optimizers()
        self.scaler = self._scaler()
        self.schedule: Any = None
        if plan.schedule and self.optimizers:
            self.schedule = SCHEDULES[plan.schedule](self.optimizers[0])
        if self.has("user hooks"):
            self._hook()
        self.watch = None if folder is None else self._watch(folder)

    def has(self, habit: str) -> bool:
        """Whether the plan has a habit."""
        return habit in self.plan.habits

    def _optimizers(self) -> list[Any]:
        if self.has("by hand"):
            return []
        make = OPTIMIZERS[self.plan.optimizer]
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.has("two optimizers") and self.plan.optimizer != "lbfgs" and len(parameters) > 3:
            return [make(parameters[:2]), make(parameters[2:])]
        return [make(parameters)]

    def _scaler(self) -> Any:
        wanted = self.has("scaler") and self.optimizers and self.plan.optimizer != "lbfgs"
        return torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3) if wanted else None

    def _hook(self) -> None:
        self.model[-1].register_forward_hook(lambda m, a, out: out * 1.01)
        self.model.register_forward_pre_hook(lambda m, args: None)
        next(self.model.parameters()).register_hook(lambda g: g * 0.9)
        for optimizer in self.optimizers:
            optimizer.register_step_pre_hook(lambda *_: self.trail.append("before"))
            optimizer.register_step_post_hook(lambda *_: self.trail.append("after"))

    def _watch(self, folder: str) -> Any:
        look = dict(self.plan.look)
        look["run"] = folder if look["run"] else None
        look["on_finding"] = [(lambda f: None) if w == "function" else w for w in look["on_finding"]]
        chosen = self.optimizers if len(self.optimizers) != 1 else self.optimizers[0]
        loss = self.loss if isinstance(self.loss, nn.Module) else None
        return unvanish.watch(self.model, chosen or None, loss, scaler=self.scaler, **look)

    def run(self) -> list[Any]:
        """All of it; what must be the same."""
        for step in range(self.plan.steps):
            try:
                with torch.autograd.set_detect_anomaly(self.has("anomaly") and step == 1, check_nan=False):
                    self._step(step)
            except Mine as error:
                self.trail.append(str(error))
            self._between(step)
        if self.watch is not None and not self.has("unclosed"):
            self.watch.close()
        for model in (self.model, self.average):
            self.trail += [t.detach().clone() for t in model.state_dict().values()]
            self.trail += [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.trail += [o.state_dict() for o in self.optimizers]
        self.trail += [torch.get_rng_state(), random.getstate(), np.random.get_state()]
        return self.trail

    def _batch(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(6, 8)
        if self.has("numpy"):
            x = x + float(np.random.rand()) + random.random()
        if self.has("poison") and self.rng.random() < 0.2:
            x[0, 0] = float("nan")
        return x, torch.randint(0, CLASSES, (6,))

    def _objective(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.has("autocast")):
            if self.has("penalty"):
                x = x.clone().requires_grad_()
            out = self.model(x)
            if self.has("train twice"):
                out = out + self.model(-x)
            loss = self.loss(out.float(), y)
        if self.has("penalty"):
            with contextlib.suppress(RuntimeError):  # some operations cannot be differentiated twice
                (slope,) = torch.autograd.grad(loss, x, create_graph=True)
                loss = loss + 0.01 * slope.square().sum()
        return loss

    def _backward(self, step: int) -> float:
        parts = 2 if self.has("accumulate") else 1
        x, y = self._batch()
        total = 0.0
        for px, py in zip(x.chunk(parts), y.chunk(parts), strict=True):
            loss = self._objective(px, py) / parts
            if self.has("catch backward") and step % 4 == 2:
                loss.register_hook(_raise)
            scaled = loss if self.scaler is None else self.scaler.scale(loss)
            try:
                scaled.backward(retain_graph=self.has("retain"))
            except RuntimeError as error:  # also of the network itself, as with reentrant checkpoints
                raise Mine(str(error)[:60]) from error
            total += loss.item()
        return total

    def _step(self, step: int) -> None:
        if self.has("catch forward") and step % 3 == 1:
            with contextlib.suppress(Exception):
                self.model(torch.randn(3, 5))
        if self.has("interrupt") and step % 5 == 1:
            self._interrupt()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=not self.has("retain"))
        if self.plan.optimizer == "lbfgs" and self.optimizers:
            value = self.optimizers[0].step(lambda: self._closure(step))
        else:
            value = self._backward(step)
            self._change_gradients(step)
            self._make_step(step)
        self.trail.append(float(value))
        if self.watch is not None and (self.has("tell") or not self.optimizers):
            self.watch.step(value)

    def _closure(self, step: int) -> float:
        self.optimizers[0].zero_grad()
        return self._backward(step)

    def _interrupt(self) -> None:
        handle = self.model[-1].register_forward_pre_hook(_interrupt)
        with contextlib.suppress(KeyboardInterrupt):
            self.model(torch.randn(3, 8))
        handle.remove()
        with torch.no_grad():
            self.model(torch.randn(3, 8))
        self.trail.append(torch._C._len_torch_function_stack())

    def _change_gradients(self, step: int) -> None:
        parameters = list(self.model.parameters())
        if self.scaler is not None and self.has("clip"):
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
        if self.has("clip"):
            limit = 0.0 if step == 3 else 0.5
            self.trail.append(float(torch.nn.utils.clip_grad_norm_(parameters, limit)))
        if self.has("clip value"):
            torch.nn.utils.clip_grad_value_(parameters, 0.01)
        if self.has("zero") and step % 4 == 1:
            self.model.zero_grad(set_to_none=False)
        if self.has("none") and step % 4 == 2 and self.scaler is None:
            self.model.zero_grad()

    def _make_step(self, step: int) -> None:
        if not self.optimizers:
            with torch.no_grad():
                for p in self.model.parameters():
                    if p.grad is not None:
                        p -= 0.01 * p.grad
            self.model.zero_grad()
        if self.has("skip step") and step % 3 == 0:
            return
        for optimizer in self.optimizers:
            if self.scaler is not None:
                self.scaler.step(optimizer)
            else:
                optimizer.step()
        if self.scaler is not None:
            self.scaler.update()
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(1.0)
        elif self.schedule is not None:
            self.schedule.step()

    def _between(self, step: int) -> None:
        """What loops do between two steps."""
        with torch.no_grad():
            for a, p in zip(self.average.parameters(), self.model.parameters(), strict=False):
                if a.shape == p.shape:
                    a.lerp_(p, 0.1)
        if self.has("evaluate") or self.has("inference"):
            guard = torch.inference_mode if self.has("inference") else torch.no_grad
            modes = {m: m.training for m in self.model.modules()}
            self.model.eval()
            with guard():
                self.trail.append(self.model(torch.randn(4, 8)).float().sum().item())
            for m, training in modes.items():
                m.training = training
        if self.has("copy") and step % 3 == 1:
            other = copy.deepcopy(self.model)
            self.trail.append(float(other(torch.randn(6, 8)).float().sum()))
        if self.has("pickle") and step % 4 == 1 and not self.has("user hooks"):
            other = pickle.loads(pickle.dumps(self.model))
            self.trail.append(float(other(torch.randn(6, 8)).float().sum()))
        if self.has("save"):
            self._save_or_load(step)
        self._change_the_set_up(step)

    def _save_or_load(self, step: int) -> None:
        if step == 2:
            buffer = io.BytesIO()
            states = [o.state_dict() for o in self.optimizers]
            torch.save({"model": self.model.state_dict(), "optimizers": states}, buffer)
            self.held["state"] = buffer.getvalue()
        elif step == 5 and not self.has("replace") and not self.has("add group"):
            state = torch.load(io.BytesIO(self.held["state"]), weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(own)

    def _change_the_set_up(self, step: int) -> None:
        if self.has("freeze"):
            self.model[0].requires_grad_(step % 3 != 0)
        first = self.optimizers[0] if self.optimizers else None
        if self.has("set rate") and first is not None and step == 4:
            for group in first.param_groups:
                group["lr"] = group["lr"] * 0.5
        if first is None or self.plan.optimizer == "lbfgs":
            return
        if self.has("add group") and step == 3:
            extra = nn.Parameter(torch.ones(2))
            extra.grad = torch.ones(2)
            self.model.register_parameter("extra", extra)
            first.add_param_group({"params": [extra]})
        if self.has("replace") and step == 4 and not self.has("user hooks"):
            self.model[-1] = nn.Linear(self.model[-1].in_features, CLASSES)
            first.add_param_group({"params": list(self.model[-1].parameters())})


def _raise(gradient: Tensor) -> None:
    raise RuntimeError("raised in the backward")


def _interrupt(module: nn.Module, args: Any) -> None:
    raise KeyboardInterrupt


def same(a: Any, b: Any) -> bool:
    """Whether two trails are the same, bit for bit, however deep."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(repr(a) == repr(b))


def run_plan(plan: Plan, watched: bool) -> tuple[list[Any] | str, Any]:
    """What a plan comes to, or how it ended; and its watch."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        loop = None
        try:
            loop = Loop(plan, folder if watched else None)
            return loop.run(), loop.watch
        except Exception as error:
            inside = traceback.format_exc() if watched else ""
            return f"{type(error).__name__}: {str(error)[:200]}{inside}", loop and loop.watch
        finally:
            if loop is not None and loop.watch is not None:
                loop.watch.close()


def try_seed(seed: int) -> str:
    """What a watch did to the loop of a seed; empty if nothing."""
    plan = Plan.draw(seed)
    alone, _ = run_plan(plan, False)
    seen, watch = run_plan(plan, True)
    if isinstance(alone, str):  # a loop that does not run by itself must end in the same way
        return (
            "" if isinstance(seen, str) and seen.startswith(alone[:60]) else f"alone {alone}, watched {seen}"
        )
    if isinstance(seen, str):
        return f"the run ended: {seen}"
    if watch.failure:
        return f"the watch failed: {watch.failure}\n{watch.guard.traceback}"
    if not same(alone, seen):
        place = next((i for i, (a, b) in enumerate(zip(alone, seen, strict=False)) if not same(a, b)), -1)
        return f"another run, from entry {place} of {len(alone)}"
    modules = torch.nn.modules.module
    left = [*modules._global_forward_hooks.values(), *modules._global_forward_pre_hooks.values()]
    if left or torch._C._len_torch_function_stack():
        return "something was left behind"
    return ""


def main() -> None:
    """Try as many loops as were asked for and say which went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one loop, and what it is made of")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.only is not None:
        plan = Plan.draw(asked.only)
        print(plan, draw_model(random.Random(plan.seed + 1)), sep="\n")
    seeds = [asked.only] if asked.only is not None else range(asked.seed, asked.seed + asked.count)
    began, bad, dead = time.perf_counter(), 0, 0
    for seed in seeds:
        if harm := try_seed(seed):
            bad += 1
            print(f"seed {seed}: {harm}", flush=True)
        dead += isinstance(run_plan(Plan.draw(seed), False)[0], str)
    took = time.perf_counter() - began
    print(f"{len(seeds)} loops, {len(seeds) - bad} the same; {dead} end by themselves; {took:.0f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
