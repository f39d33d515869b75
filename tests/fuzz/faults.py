"""A fault at every line of a watch, in turn: the training must go on bit for bit, and nothing may stay.

Run it by hand: `python -m tests.fuzz.faults` (all sites of all loops), `--loop recurrent --every 7`. A site
is a line of unvanish that runs while a training is watched, in its own thread or in one of ours; each is made
to raise once, at its first and at its last run. Left out are the doors: the lines of the guard itself, and
those that do nothing but call it. `--file store/` only tries sites of such files, `--count` draws some by
`--seed`.
A reading of an examined step that fails is left out and noted; the watch goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.watch import opening, ranks
from unvanish.clinic.watch.line import Line
from unvanish.store import Run, Store, StoreError, open_run

PACKAGE = str(Path(unvanish.__file__).parent)
WATCH = ("clinic/watch/", "probes/", "surgery/clipping", "rules/", "core/", "clinic/rounds", "store/")
LONGEST = 8.0  # seconds of a run
DOORS = {
    ("probes/live/guard.py", None),
    ("core/caution.py", None),
    ("probes/live/eyes.py", "__torch_function__"),
    ("probes/live/kinds.py", "may_matter"),
    ("probes/compositions.py", "_find_override"),
    ("probes/compositions.py", "find_overrides"),
    ("probes/live/backwards.py", "_run_backward"),
    ("probes/live/backwards.py", "_ask_of_one"),
    ("probes/live/backwards.py", "_ask_of_some"),
    ("probes/live/witness.py", "__torch_function__"),
    ("clinic/watch/optimizers.py", "__call__"),
    ("clinic/watch/scaling.py", "__call__"),
    ("clinic/watch/scaling.py", "_step"),
    ("clinic/watch/opening.py", "watch"),
    *(
        ("clinic/watch/front.py", name)
        for name in (
            "__init__",
            "__enter__",
            "__exit__",
            "__del__",
            "step",
            "close",
            "flush",
            "abandon",
            "_close_all",
        )
    ),
}
# torch's own answer is taken in place of theirs, so nothing is given up
SILENT = {"_are_taken_over", "_is_ordinary", "is_overridden", "<listcomp>"}
Site = tuple[str, str, int]  # file, function, line
Look = Callable[..., Any]


class Planted(RuntimeError):
    """A fault that we made."""


class Unwatched:
    """Stands where a watch would."""

    def step(self, loss: Any = None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


# -- loops as people write them; each returns what must be the same with and without a watch


def _batches(steps: int, *shape: int, classes: int = 3) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        yield (
            torch.randn(*shape, generator=generator),
            torch.randint(0, classes, shape[:1], generator=generator),
        )


def _mlp() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    )


def _state(model: nn.Module, losses: list[float]) -> list[Any]:
    return [*losses, *[t.clone() for t in model.state_dict().values()], torch.get_rng_state()]


def plain(look: Look) -> list[Any]:
    """Nothing special; a loss module."""
    model, loss_function = _mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    watch, losses = look(model, optimizer, loss_function), []
    for x, y in _batches(6, 8, 6):
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        watch.step(loss)
        losses.append(loss.item())
    watch.close()
    return _state(model, losses)


def scaled(look: Look) -> list[Any]:
    """A GradScaler that leaves its first steps out, autocast, clipping."""
    model = _mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    watch, losses = look(model, optimizer, scaler=scaler), []
    for x, y in _batches(6, 8, 6):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = 50 * nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    watch.close()
    assert "step" not in vars(scaler)
    return _state(model, losses)


def closure(look: Look) -> list[Any]:
    """LBFGS."""
    model = _mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)
    watch, losses = look(model, optimizer), []
    for x, y in _batches(4, 8, 6):

        def again(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(again)
        watch.step(loss)
        losses.append(float(loss.detach()))
    watch.close()
    return _state(model, losses)


def accumulated(look: Look) -> list[Any]:
    """Two forwards a step, two optimizers, a forward without gradients in between, a step left out."""
    model = _mlp()
    both = [
        torch.optim.SGD(model[0].parameters(), 1e-2, momentum=0.9),
        torch.optim.Adam(model[3].parameters()),
    ]
    watch, losses = look(model, both), []
    for step, (x, y) in enumerate(_batches(6, 8, 6)):
        for px, py in zip(x.chunk(2), y.chunk(2), strict=True):
            loss = nn.functional.cross_entropy(model(px), py) / 2
            loss.backward()
            losses.append(loss.item())
        with torch.no_grad():
            losses.append(float(model(x).sum()))
        for optimizer in both:
            if step == 3:
                optimizer.zero_grad(set_to_none=False)
            optimizer.step()
            optimizer.zero_grad()
    watch.close()
    return _state(model, losses)


class Reader(nn.Module):
    """Recurrent layers, each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.LSTM(4, 6, batch_first=True), nn.GRU(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.a(x)
        x, _ = self.b(x.transpose(0, 1))
        return self.head(x[-1])


def recurrent(look: Look) -> list[Any]:
    """An LSTM and a GRU, followed through time."""
    torch.manual_seed(1)
    return _train(Reader(), look, 8, 5, 4)


def transformer(look: Look) -> list[Any]:
    """Attention; a warning is what it does with findings."""
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return _train(nn.Sequential(body, nn.Flatten(), nn.Linear(40, 3)), look, 4, 5, 8)


def diverging(look: Look) -> list[Any]:
    """Rates that end in NaN, so that there are findings to tell of."""
    return _train(_mlp(), look, 8, 6, rate=1e18, steps=8)


def _train(model: nn.Module, look: Look, *shape: int, rate: float = 1e-2, steps: int = 6) -> list[Any]:
    optimizer = torch.optim.SGD(model.parameters(), rate)
    watch, losses = look(model, optimizer), []
    for x, y in _batches(steps, *shape):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        watch.step(loss.detach())
        losses.append(loss.item())
    watch.close()
    return _state(model, losses)


def handmade(look: Look) -> list[Any]:
    """No optimizer; `step(loss)` makes the steps."""
    model = _mlp()
    watch, losses = look(model), []
    for x, y in _batches(6, 8, 6):
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        watch.step(loss)
        losses.append(loss.item())
    watch.close()
    return _state(model, losses)


def together(look: Look) -> list[Any]:
    """Two ranks in one process, each with a folder of its own; the second one's record goes to the first."""
    found, models = [], [_mlp(), _mlp()]
    watches, optimizers = [], [torch.optim.SGD(m.parameters(), 1e-2) for m in models]
    for rank in (0, 1):
        watches.append(look(models[rank], optimizers[rank], rank=rank))
    for x, y in _batches(6, 8, 6):
        time.sleep(0.06)  # the threads talk
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    for watch in reversed(watches):
        watch.close()
    return _state(models[0], _state(models[1], found))


LOOPS: dict[str, tuple[Callable[[Look], list[Any]], dict[str, Any]]] = {
    "plain": (plain, {"every": 1, "run": True}),
    "scaled": (scaled, {"every": 2}),
    "closure": (closure, {"every": 1}),
    "accumulated": (accumulated, {"every": 2}),
    "recurrent": (recurrent, {"every": 1}),
    "transformer": (transformer, {"every": 1, "on_finding": "warn"}),
    "diverging": (diverging, {"every": 2, "on_finding": ["log", "snapshot"], "run": True}),
    "guarded": (plain, {"every": 2, "on_finding": ["silent", "guard"]}),
    "handmade": (handmade, {"every": 1}),
    "by budget": (plain, {"budget": 0.01}),
    "recorded": (recurrent, {"every": 2, "run": True}),
    "together": (together, {"every": 1, "run": True}),
}


# -- where a fault goes, and what must not come of it


def _place(code: Any) -> tuple[str, str] | None:
    """The file and function of a code object, if faults may be planted there."""
    if not code.co_filename.startswith(PACKAGE):
        return None
    file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
    if (
        not file.startswith(WATCH)
        or (file, None) in DOORS
        or (file, code.co_name) in DOORS
        or code.co_name == "<module>"
    ):
        return None
    return file, code.co_name


@contextlib.contextmanager
def traced(trace: Callable[..., Any]) -> Iterator[None]:
    """Every call in this thread, and in threads that begin, is traced."""
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def find_sites(run: Callable[[], Any]) -> Counter[Site]:
    """Every line of the watch that runs, and how often."""
    seen: Counter[Site] = Counter()

    def trace(frame: Any, event: str, value: Any) -> Any:
        place = _place(frame.f_code)
        if place is None:
            return None

        def line(frame: Any, event: str, value: Any) -> Any:
            if event == "line":
                seen[(*place, frame.f_lineno)] += 1
            return line

        return line

    with traced(trace):
        run()
    return seen


def plant(site: Site, at: int, run: Callable[[], Any]) -> tuple[Any, bool]:
    """Run with a fault at the `at`-th time of a site; the result, and whether it was reached."""
    file, function, number = site
    times, planted = [0], [False]

    def trace(frame: Any, event: str, value: Any) -> Any:
        code = frame.f_code
        if code.co_name != function or _place(code) != (file, function):
            return None
        return line

    def line(frame: Any, event: str, value: Any) -> Any:
        if event == "line" and frame.f_lineno == number:
            times[0] += 1
            if times[0] == at and not _is_finalizing(frame):
                planted[0] = True
                raise Planted("a fault")
        return line

    with traced(trace):
        found = run()
    return found, planted[0]


def _is_finalizing(frame: Any) -> bool:
    """Whether Python runs it while it deletes something: what fails there goes nowhere."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


Seen = list[tuple[Any, Path]]  # watches and their folders


def run_watched(name: str, folder: str, seen: Seen) -> list[Any]:
    """One of the loops, watched; its watches that write into a folder go into `seen`."""
    loop, options = LOOPS[name]
    with company() as sit_down:

        def look(*args: Any, rank: int | None = None, **more: Any) -> Any:
            chosen = {"on_finding": "silent", **options, **more}
            place = Path(folder) / str(rank or 0)
            if chosen.get("run"):
                chosen["run"] = place
            with sit_down(rank):
                watch = unvanish.watch(*args, **chosen)
            if chosen.get("run"):
                seen.append((watch, place))
            return watch

        return loop(look)


def run_in_folder(work: Callable[[Callable[[], list[Any]]], Any], name: str) -> tuple[Any, list[str], bool]:
    """What `work` makes of a watched loop, what is wrong with its records, and whether a watch that goes on
    has noted a fault of ours.
    """
    seen: Seen = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = work(lambda: run_watched(name, folder, seen))
        wrong = [text for watch, place in seen for text in judge_record(watch, place)]
        told = [note for watch, _ in seen if not watch.failure for note in watch.notes]
        return found, wrong, any("Planted" in note for note in told)


@contextlib.contextmanager
def company() -> Iterator[Callable[[int | None], Any]]:
    """What seats a watch as one rank of two; None: it stays alone."""
    store = torch.distributed.HashStore()
    true = ranks.own_rank, ranks.count_processes, ranks.open_line

    @contextlib.contextmanager
    def sit_down(rank: int | None) -> Iterator[None]:
        if rank is not None:
            ranks.own_rank = opening.own_rank = lambda: rank
            ranks.count_processes = lambda: 2
            ranks.open_line = lambda _: Line(store, "watch/")
        try:
            yield
        finally:
            ranks.own_rank, ranks.count_processes, ranks.open_line = true
            opening.own_rank = ranks.own_rank

    yield sit_down


def judge_record(watch: Any, place: Path) -> list[str]:
    """What is wrong with the record of a watch that was closed."""
    store = watch.store
    if store is None:
        return []
    lost, troubles = store.losses.steps, [*watch.notes, watch.failure]
    try:
        run = open_run(place)
        kept = len(Run(place, store.file.name).steps()["step"])
    except StoreError as error:
        return [f"the record cannot be read: {error}"]
    found = [] if kept + lost >= watch.steps else [f"{kept} steps kept and {lost} lost of {watch.steps}"]
    found += [] if run.standing().closed else ["the record is not closed"]
    found += ["no note tells of the fault"] if store.fault and not any(map(str, troubles)) else []
    try:
        Store(place, name=store.file.name).close()
    except StoreError as error:
        found.append(f"the folder is held: {error}")
    return found


def run_alone(name: str) -> list[Any]:
    """The same loop without a watch."""
    return LOOPS[name][0](lambda *args, **more: Unwatched())


def same(a: list[Any], b: list[Any]) -> bool:
    """Whether two runs gave the same, bit for bit."""
    return len(a) == len(b) and all(
        torch.equal(x.view(torch.uint8), y.view(torch.uint8)) if isinstance(x, Tensor) else repr(x) == repr(y)
        for x, y in zip(a, b, strict=True)
    )


def find_leftovers() -> list[str]:
    """What hangs in torch itself when a run has ended."""
    modules, optim = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]
    functional = vars(torch.nn.functional)
    tables = {
        "module pre-hook": modules._global_forward_pre_hooks,
        "module hook": modules._global_forward_hooks,
        "step pre-hook": optim._global_optimizer_pre_hooks,
        "step post-hook": optim._global_optimizer_post_hooks,
    }
    found = [name for name, table in tables.items() if table]
    found += ["function mode"] if torch._C._len_torch_function_stack() else []
    found += (
        ["composition"]
        if functional["has_torch_function"].__module__ != "torch._C"
        and ("unvanish" in str(functional["has_torch_function"].__module__))
        else []
    )
    own = (torch.autograd, "_engine_run_backward"), (torch._tensor, "has_torch_function_unary")
    found += [name for place, name in own if getattr(place, name).__module__.startswith("unvanish")]
    return found


def clear_leftovers() -> None:
    """Clear them away, so that the next fault is judged alone."""
    modules, optim = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]
    modules._global_forward_pre_hooks.clear()
    modules._global_forward_hooks.clear()
    optim._global_optimizer_pre_hooks.clear()
    optim._global_optimizer_post_hooks.clear()
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward
    torch._tensor.has_torch_function_unary = torch.overrides.has_torch_function_unary
    for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
        setattr(torch.nn.functional, name, getattr(torch.overrides, name))


def try_site(name: str, site: Site, at: int, wanted: list[Any]) -> str:
    """What came of a fault at a site that should not have; empty if nothing."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            began = time.perf_counter()
            (found, reached), wrong, noted = run_in_folder(lambda run: plant(site, at, run), name)
            took = time.perf_counter() - began
    except BaseException as error:
        torch.set_grad_enabled(True)  # so that the next fault is judged alone
        return f"the run ended: {type(error).__name__}: {error}"
    if not same(found, wanted):
        return "the run is another one"
    if wrong:
        return "; ".join(wrong)
    if took > LONGEST:
        return f"it took {took:.1f} s"
    if left := find_leftovers():
        clear_leftovers()
        return f"left behind: {', '.join(left)}"
    ours = [w for w in told if str(w.message).startswith("unvanish")]
    silent = site[1] in SILENT and site[0] in ("probes/compositions.py", "probes/modes.py")
    reading = site[0].startswith("probes/") and not site[0].startswith("probes/live/")
    silent |= reading or noted or site[0] in ("probes/live/witness.py", "probes/live/labels.py")  # left out
    if reached and len(ours) != 1 and not (silent and not ours):
        return f"{len(ours)} warnings: " + "; ".join(str(w.message)[:200] for w in ours)
    return ""


def try_loop(
    name: str,
    every: int = 1,
    file: str = "",
    count: int = 0,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> tuple[int, int]:
    """Faults at every `every`-th site of a loop, at its first and last run: how many, and how many harmed.

    `file`: how the names of the files begin. `count`: so many of them only, drawn by `seed`.
    """
    wanted = run_alone(name)
    run_in_folder(lambda run: run(), name)  # what is imported on the way is imported now
    sites, wrong, _ = run_in_folder(find_sites, name)
    if wrong:
        say(f"{name}, without a fault: {'; '.join(wrong)}")
    chosen = [site for site in sorted(sites) if site[0].startswith(file)][::every]
    if count:
        chosen = random.Random(seed).sample(chosen, min(count, len(chosen)))
    tried, harmed = 0, len(wrong)
    for site in chosen:
        for at in sorted({1, sites[site]}):
            tried += 1
            if harm := try_site(name, site, at, wanted):
                harmed += 1
                say(f"{name}: {site[0]}:{site[2]} in {site[1]}, run {at} of {sites[site]}: {harm}")
    gc.collect()
    return tried, harmed


def main() -> None:
    """Try everything that was asked for and say what did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=LOOPS, action="append")
    parser.add_argument("--every", type=int, default=1, help="only each n-th site")
    parser.add_argument("--file", default="", help="only sites of files whose names begin so")
    parser.add_argument("--count", type=int, default=0, help="so many sites of a loop only, drawn")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    total = bad = 0
    for name in asked.loop or LOOPS:
        began = time.perf_counter()
        tried, harmed = try_loop(name, asked.every, asked.file, asked.count, asked.seed)
        total, bad = total + tried, bad + harmed
        print(f"{name}: {tried} faults, {harmed} did harm, {time.perf_counter() - began:.0f} s", flush=True)
    print(f"all: {total} faults, {bad} did harm")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
