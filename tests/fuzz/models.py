"""Random models that train alone, each examined by `check`: `python -m tests.fuzz.models --count 2000`.

A model is drawn from its seed; that it trains alone is seen first, on a twin drawn from the same seed. Then
it is examined, its state compared with the one before, and trained two steps beside the twin, bit for bit.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tests.fuzz import autograd, functions, layers, odd, states  # noqa: F401  they register their blocks
from tests.fuzz.kit import BLOCKS, Block
from tests.fuzz.state import State, differences, picture
from torch import Tensor, nn

import unvanish
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.reports.diagnosis.html import render as render_html
from unvanish.reports.diagnosis.json import render as render_json
from unvanish.surgery.receipt import SurgeryError

LIMIT = 60  # seconds a check may take
CLASSES = 3
STEPS = 2


@dataclass
class Output:
    """An output of a class of somebody's own."""

    logits: Tensor
    hidden: Tensor | None = None
    loss: Tensor | None = None


@dataclass
class Item:
    """A batch of a class of somebody's own."""

    x: Tensor
    name: str = "item"


class Weighed(nn.Module):
    """A loss with parameters of its own, of shape (1,)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, output: Any, y: Tensor) -> Tensor:
        return F.cross_entropy(find_logits(output).float(), y) * self.scale


@dataclass(frozen=True)
class Drawn:
    """A model, what it is run with, and the names of its parts."""

    model: nn.Module
    batch: Any
    loss: Callable[..., Any] | None
    parts: tuple[str, ...]


class Net(nn.Module):
    """A stem, blocks and a head; `returns` says how its output is dressed, `entry` how it is called."""

    def __init__(
        self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module, returns: str, entry: str
    ) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head
        self.returns, self.entry = returns, entry

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x, y = self._read(args, kwargs)
        x = self.stem(x)
        for one in self.blocks:
            x = one(x)
        return self._dress(self.head(x), x, y)

    def _read(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if self.entry == "object":
            return args[0].x, None
        if self.entry == "dict":
            return kwargs["x"], kwargs.get("labels")
        if self.entry == "two":
            return args[0] + 0 * args[1].mean(), None
        return args[0], None

    def _dress(self, y: Tensor, hidden: Tensor, labels: Tensor | None) -> Any:
        own = F.cross_entropy(y, labels) if labels is not None and self.returns == "own" else None
        return {
            "plain": lambda: y,
            "tuple": lambda: (y, hidden),
            "dict": lambda: {"logits": y, "hidden": [hidden]},
            "dataclass": lambda: Output(y, hidden),
            "namespace": lambda: types.SimpleNamespace(logits=y),
            "own": lambda: Output(y, hidden, own),
        }[self.returns]()


def draw(seed: int) -> Drawn:
    """The model of a seed; the same seed gives a twin with the same numbers."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    d = r.choice([4, 8, 12])
    batch = r.choice([1, 2, 5, 8, 16])
    kind, stem, x = _stem(r, d, batch)
    names, blocks = [], []
    for _ in range(r.choice([1, 2, 2, 3, 4, 6])):
        one = _pick(r, kind)
        names.append(one.name)
        blocks.append(one.make(d, r))
        kind = one.target
    if kind != "vec":
        one = _pick(r, kind, "vec")
        names.append(one.name)
        blocks.append(one.make(d, r))
    head = nn.Linear(d, CLASSES)
    returns = r.choice(["plain"] * 5 + ["tuple", "dict", "dataclass", "namespace", "own"])
    entry = _entry(r, returns, x)
    model: nn.Module = Net(stem, blocks, head, returns, entry)
    if x.is_floating_point() and r.random() < 0.06:
        wide = r.choice([torch.float64, torch.bfloat16])
        model, x = model.to(wide), x.to(wide)
        names.append(str(wide))
    if r.random() < 0.1:
        model.eval()
        names.append("eval")
    how, model = _wrap(r, model)
    names += [how] if how else []
    target, loss = _loss(r, batch, returns)
    given = _batch(r, x, target, entry, returns, loss)
    return Drawn(model, given, loss, (entry, returns, *names))


def _entry(r: random.Random, returns: str, x: Tensor) -> str:
    if returns == "own" or r.random() < 0.1:
        return "dict"
    if x.is_floating_point() and r.random() < 0.1:
        return "two"
    return "object" if r.random() < 0.04 else "one"


def _wrap(r: random.Random, model: nn.Module) -> tuple[str, nn.Module]:
    """The model inside a wrapper, sometimes."""
    how = r.choice(["compile", "compile in place", "parallel", *[""] * 90])
    if how == "compile":
        return how, torch.compile(model, backend="eager")
    if how == "compile in place":
        model.compile(backend="eager")
    return how, nn.DataParallel(model) if how == "parallel" else model


def _stem(r: random.Random, d: int, batch: int) -> tuple[str, nn.Module, Tensor]:
    choice = r.choice(["vec", "vec", "vec", "seq", "img", "tokens", "bytes", "strided"])
    if choice == "vec":
        return "vec", nn.Linear(7, d), torch.randn(batch, 7)
    if choice == "strided":
        return "vec", nn.Linear(7, d), torch.randn(7, batch).mT
    if choice == "seq":
        return "seq", nn.Linear(5, d), torch.randn(batch, r.choice([1, 4, 6]), 5)
    if choice == "img":
        return "img", nn.Conv2d(3, d, 3, 2, padding=1), torch.randn(batch, 3, 12, 12)
    if choice == "tokens":
        return (
            "seq",
            nn.Embedding(11, d, sparse=r.random() < 0.2),
            torch.randint(0, 11, (batch, r.choice([1, 4, 6]))),
        )
    return "vec", nn.EmbeddingBag(11, d, mode="sum"), torch.randint(0, 11, (batch, 4), dtype=torch.int32)


def _pick(r: random.Random, source: str, target: str = "") -> Block:
    known = [b for b in BLOCKS.values() if b.source == source and (not target or b.target == target)]
    return r.choice(known)


def _loss(r: random.Random, batch: int, returns: str) -> tuple[Tensor, Callable[..., Any] | None]:
    classes = torch.randint(0, CLASSES, (batch,))
    numbers = torch.randn(batch, CLASSES)
    if returns == "own" or r.random() < 0.1:
        return classes, None

    if returns == "plain" and r.random() < 0.5:
        return r.choice(
            [
                (classes, nn.CrossEntropyLoss()),
                (numbers, nn.MSELoss()),
                (numbers, nn.L1Loss()),
                (numbers, nn.HuberLoss()),
                (numbers.sigmoid(), nn.BCEWithLogitsLoss()),
                (classes, nn.MultiMarginLoss()),
                (numbers.softmax(1), nn.KLDivLoss(reduction="batchmean")),
            ]
        )
    return r.choice(
        [
            (classes, lambda output, y: F.cross_entropy(find_logits(output).float(), y, label_smoothing=0.1)),
            (numbers, lambda output, y: (find_logits(output) - y).abs().mean()),
            (classes, lambda output: find_logits(output).pow(2).mean()),  # the batch has no target then
            (classes, Weighed()),
            (classes, lambda output, y: F.nll_loss(find_logits(output).float().log_softmax(1), y)),
            (
                classes,
                lambda output, y: (
                    -find_logits(output).float().softmax(1)[torch.arange(len(y)), y].log().sum()
                ),
            ),
        ]
    )


def _batch(r: random.Random, x: Tensor, target: Tensor, entry: str, returns: str, loss: Any) -> Any:
    if target.is_floating_point() and x.is_floating_point():
        target = target.to(x.dtype)
    labels = {"labels": target} if returns == "own" else {}
    given: Any = {"x": x, **labels} if entry == "dict" else (x, x.clone()) if entry == "two" else x
    given = Item(x) if entry == "object" else given
    alone = loss is None or (not isinstance(loss, nn.Module) and loss.__code__.co_argcount == 1)
    return ((given,) if entry == "two" else given) if alone else (given, target)


def train(drawn: Drawn, steps: int = STEPS) -> list[float]:
    """The losses of some steps of training as its user writes them."""
    trainable = [p for p in drawn.model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.SGD(trainable, lr=0.01), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = objective(drawn)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


def objective(drawn: Drawn) -> Tensor:
    """One forward, and its loss."""
    x, *rest = drawn.batch if isinstance(drawn.batch, tuple) else (drawn.batch,)
    output = (
        drawn.model(**x)
        if isinstance(x, dict)
        else drawn.model(*x)
        if isinstance(x, tuple)
        else drawn.model(x)
    )
    if drawn.loss is None:
        own = getattr(output, "loss", None)
        return find_logits(output).float().sum() if own is None else own
    return drawn.loss(output, *rest)


def find_logits(output: Any) -> Tensor:
    """The logits in an output of any dress."""
    if isinstance(output, tuple):
        return output[0]
    if isinstance(output, Tensor):
        return output
    return output["logits"] if isinstance(output, dict) else output.logits


def numbers_of(drawn: Drawn) -> dict[str, Tensor]:
    """Parameters, buffers and gradients by name."""
    model = drawn.model
    found = {n: t.detach() for n, t in (*model.named_parameters(), *model.named_buffers())}
    return found | {f"{n}.grad": p.grad for n, p in model.named_parameters() if p.grad is not None}


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The names of tensors that are not equal bit for bit."""
    names = a.keys() | b.keys()
    return sorted(n for n in names if n not in a or n not in b or not _equal(a[n], b[n]))


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.layout is torch.sparse_coo or b.layout is torch.sparse_coo:
        a, b = a.to_dense(), b.to_dense()
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """TimeoutError after some seconds, on the main thread."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not finished after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_one(seed: int, verb: str = "check") -> dict[str, Any]:
    """What became of one seed: "alone" (does not train alone), "ok", "crash" or "changed", and why."""
    found: dict[str, Any] = {"seed": seed}
    warnings.simplefilter("ignore")
    try:
        twin = draw(seed)
        found["parts"] = twin.parts
        if not any(p.requires_grad for p in twin.model.parameters()):
            return {**found, "outcome": "alone", "why": "nothing is trainable"}
        losses = train(twin)
    except Exception as error:
        return {**found, "outcome": "alone", "why": f"{type(error).__name__}: {error}"[:200]}
    drawn, started = draw(seed), time.perf_counter()
    before = picture(model=drawn.model, batch=drawn.batch, loss=drawn.loss)
    try:
        with time_limit(LIMIT):
            found.update(VERBS[verb](drawn))
    except Exception as error:
        trace = traceback.format_exc().splitlines()
        found |= {"outcome": "crash", "why": f"{type(error).__name__}: {error}"[:300], "trace": trace[-12:]}
        return found
    found["seconds"] = time.perf_counter() - started
    changed = compare(before, drawn)
    after = train(drawn)
    changed += [f"later {n}" for n in differ(numbers_of(twin), numbers_of(drawn))]
    if repr(after) != repr(losses):
        changed.append(f"later losses {losses} became {after}")
    return {**found, "outcome": "changed" if changed else "ok", "why": "; ".join(changed)[:300]}


def compare(before: State, drawn: Drawn) -> list[str]:
    """What differs by now, left out what nothing can put back, such as an open iterator."""
    after = picture(model=drawn.model, batch=drawn.batch, loss=drawn.loss)
    return [d for d in differences(before, after, versions=False) if not d.startswith(tuple(before.open))]


def _check(drawn: Drawn) -> dict[str, Any]:
    diagnosis = unvanish.check(drawn.model, drawn.batch, drawn.loss)
    str(diagnosis)
    render_json(diagnosis)
    render_html(diagnosis)
    return {"codes": list(diagnosis.codes()), "left_out": list(diagnosis.unmeasured)}


def _forecast(drawn: Drawn) -> dict[str, Any]:
    x = drawn.batch[0] if isinstance(drawn.batch, tuple) else drawn.batch
    try:
        diagnosis = unvanish.forecast(drawn.model, batch=(x,) if isinstance(x, tuple) else x)
    except (CheckError, ModelCrash) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:300]}
    str(diagnosis)
    return {"codes": list(diagnosis.codes()), "left_out": list(diagnosis.unmeasured)}


def _cure(drawn: Drawn) -> dict[str, Any]:
    try:
        cured = unvanish.cure(drawn.model, drawn.batch, drawn.loss, budget=5.0, steps=5)
    except (CheckError, ModelCrash, SurgeryError) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:300]}
    str(cured)
    return {}


VERBS: dict[str, Callable[[Drawn], dict[str, Any]]] = {"check": _check, "forecast": _forecast, "cure": _cure}


def run(count: int, seed: int, verb: str, out: Path | None) -> Iterator[dict[str, Any]]:
    """The outcomes of `count` models that train alone, in processes that are begun again if one dies."""
    done = 0
    while done < count:
        command = [sys.executable, "-m", "tests.fuzz.models", "--child", "--verb", verb]
        command += ["--count", str(min(500, count - done)), "--seed", str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout or ():
                if not line.startswith("{"):
                    continue
                found = json.loads(line)
                if found["outcome"] == "begun":
                    seed = found["seed"]
                    continue
                seed = found["seed"] + 1
                done += found["outcome"] != "alone"
                if out is not None:
                    with out.open("a") as file:
                        file.write(line)
                yield found
        if child.returncode:
            yield {"seed": seed, "outcome": "crash", "why": f"the process died with {child.returncode}"}
            seed, done = seed + 1, done + 1


def _serve(count: int, seed: int, verb: str) -> None:
    torch.set_num_threads(1)
    done = 0
    while done < count:
        print(json.dumps({"seed": seed, "outcome": "begun"}), flush=True)
        found = try_one(seed, verb)
        print(json.dumps(found, default=str), flush=True)
        done += found["outcome"] != "alone"
        seed += 1


def main() -> int:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=sorted(VERBS), default="check")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        _serve(given.count, given.seed, given.verb)
        return 0
    counts: collections.Counter[str] = collections.Counter()
    for found in run(given.count, given.seed, given.verb, given.out):
        counts[found["outcome"]] += 1
        counts["left out"] += bool(found.get("left_out"))
        counts["refused"] += "refused" in found
        if found["outcome"] in ("crash", "changed"):
            print(
                f"{found['outcome']} at seed {found['seed']} {found.get('parts')}: {found['why']}", flush=True
            )
    tried = sum(counts[k] for k in ("ok", "crash", "changed"))
    print(dict(counts), f"{(counts['ok'] + counts['changed']) / max(1, tried):.2%} of {tried} examined")
    return bool(counts["crash"] or counts["changed"])


if __name__ == "__main__":
    sys.exit(main())
