"""Interrupts at random moments of `check`, `forecast`, `cure`: `python -m tests.fuzz.interrupts --count 500`.

Notable: an interrupt is raised at the n-th line that runs inside the call, wherever that line is (ours,
torch's, the model's, in the putting back too), or comes as a real signal, once or in a burst, or as an
exception sent to the thread. After it, all is as it was, by the oracle (`tests.fuzz.state`).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from tests.fuzz.state import differences, picture
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import unvanish

WRAPPED = (TimeoutError, ValueError, RuntimeError)  # an alarm may be taken for what the model raised
KINDS = ("line", "line", "line", "signal", "burst", "alarm", "sent")


class Remembers(nn.Module):
    """A net that writes to nearly all that a forward can reach, and calls a backward itself."""

    seen = 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.norm, self.side, self.head = nn.BatchNorm1d(8), nn.Linear(8, 1), nn.Linear(8, 2)
        self.cache: dict[str, Any] = {"k": torch.zeros(2), "deep": [{"n": 0}]}
        self.numbers, self.last = np.zeros(3), deque([0], maxlen=4)
        self.own = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        type(self).seen += 1
        self.cache["k"].add_(1)
        self.cache["deep"][0]["n"] += 1
        self.numbers += 1
        self.last.append(self.last[-1] + 1)
        if not x.is_meta:
            self.side(x.detach()).sum().backward()
        noise = torch.rand(1, generator=self.own).to(x.device) + float(np.random.rand()) + random.random()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for layer in self.layers:
                x = torch.relu(layer(x))
        x = checkpoint(self.norm, x, use_reentrant=False)
        self.last_output = x
        return self.head(x * noise)


def plain() -> nn.Module:
    return nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(8, 8), nn.Sigmoid())], nn.Linear(8, 2))


MODELS: tuple[Callable[[], nn.Module], ...] = (Remembers, plain)
CALLS: dict[str, Callable[[nn.Module, Any, Any], Any]] = {
    "check": lambda model, batch, loss: unvanish.check(model, batch, loss),
    "forecast": lambda model, batch, loss: unvanish.forecast(model, (8,)),
    "cure": lambda model, batch, loss: unvanish.cure(model, batch, loss, steps=5, budget=5),
}


@dataclass
class Countdown:
    """Raises at the n-th line of a call; counts the lines if n is 0."""

    lines: int
    seen: int = 0
    fired: str = ""

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        """A trace function."""
        if event == "line":
            self.seen += 1
            if self.seen == self.lines:
                self.fired = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace

    def run(self, call: Callable[[], Any]) -> None:
        """Make the call under the trace."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)


class Striker:
    """Interrupts a call from outside after some seconds; once `over`, nothing raises any more."""

    def __init__(self, kind: str, after: float) -> None:
        self.kind, self.after = kind, after
        self.over, self.ended = False, threading.Event()
        self.thread = threading.Thread(target=self.strike, name="strike")
        self.before: list[Any] = []

    def run(self, call: Callable[[], Any]) -> None:
        """Make the call."""
        self.before = [signal.signal(s, self.hear) for s in (signal.SIGINT, signal.SIGALRM)]
        try:
            if self.kind == "alarm":
                signal.setitimer(signal.ITIMER_REAL, self.after)
            else:
                self.thread.start()
            call()
        finally:
            self.over = True

    def hear(self, number: int, frame: Any) -> None:
        """The handler of both signals."""
        if not self.over:
            raise TimeoutError("out of time") if number == signal.SIGALRM else KeyboardInterrupt

    def strike(self) -> None:
        """What the thread does."""
        main = threading.main_thread().ident or 0
        if self.ended.wait(self.after):
            return
        if self.kind == "sent":
            interrupt = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), interrupt)
            return
        for _ in range(5 if self.kind == "burst" else 1):
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.0003)

    def settle(self) -> None:
        """Wait until nothing can strike, and set the handlers back."""
        self.over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.ended.set()
        if self.thread.ident is not None:
            self.thread.join()
        time.sleep(0.001)
        for number, handler in zip((signal.SIGINT, signal.SIGALRM), self.before, strict=True):
            signal.signal(number, handler)


def interrupt_by_clock(call: Callable[[], Any], after: float, kind: str) -> None:
    """Make the call, and interrupt it from outside after some seconds."""
    striker = Striker(kind, after)
    with contextlib.suppress(KeyboardInterrupt, TimeoutError):
        with contextlib.suppress(KeyboardInterrupt, *WRAPPED):
            striker.run(call)
        striker.settle()
    striker.settle()


def measure(verb: str, make: Callable[[], nn.Module], seed: int) -> tuple[int, float]:
    """How many lines and seconds a call takes that nothing interrupts."""
    torch.manual_seed(seed)
    model, batch = make(), (torch.randn(6, 8), torch.randint(0, 2, (6,)))
    loss = nn.CrossEntropyLoss()
    CALLS[verb](model, batch, loss)
    started = time.perf_counter()
    CALLS[verb](model, batch, loss)
    seconds = time.perf_counter() - started
    counter = Countdown(0)
    counter.run(lambda: CALLS[verb](model, batch, loss))
    return counter.seen, seconds


def try_one(seed: int, sizes: dict[tuple[str, int], tuple[int, float]], verbs: tuple[str, ...]) -> list[str]:
    """What one interrupt left changed."""
    r = random.Random(seed)
    which = r.randrange(len(MODELS))
    verb, kind = r.choice(verbs), r.choice(KINDS)
    if (verb, which) not in sizes:
        sizes[verb, which] = measure(verb, MODELS[which], seed)
    lines, seconds = sizes[verb, which]
    torch.manual_seed(seed)
    model, batch, loss = (
        MODELS[which](),
        (torch.randn(6, 8), torch.randint(0, 2, (6,))),
        nn.CrossEntropyLoss(),
    )
    late = r.random() < 0.4  # the putting back comes last
    share = 1 - 0.12 * r.random() if late else r.random()
    before = picture(model=model, batch=batch, loss=loss)
    if kind == "line":
        counter = Countdown(max(1, int(lines * share)))
        counter.run(lambda: CALLS[verb](model, batch, loss))
        where = counter.fired
    else:
        interrupt_by_clock(lambda: CALLS[verb](model, batch, loss), seconds * share, kind)
        where = f"{kind} at {share:.3f}"
    after = picture(model=model, batch=batch, loss=loss)
    return [f"seed {seed}, {verb}, {where}: {d}" for d in differences(before, after)]


def run(count: int, seed: int, verbs: tuple[str, ...] = tuple(CALLS)) -> tuple[Counter[str], list[str]]:
    """Interrupt so many calls; how many were left changed, and what."""
    sizes: dict[tuple[str, int], tuple[int, float]] = {}
    tally: Counter[str] = Counter()
    said: list[str] = []
    for number in range(seed, seed + count):
        found = try_one(number, sizes, verbs)
        tally["changed" if found else "as it was"] += 1
        said += found[:3]
    return tally, said


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=tuple(CALLS), action="append")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    tally, said = run(chosen.count, chosen.seed, tuple(chosen.verb or CALLS))
    print(*said, sep="\n")
    print(dict(tally))
    return int(tally["changed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
