"""State hidden anywhere a forward can reach, and changed in it: `python -m tests.fuzz.hidden --count 1000`.

Notable: a thing that can change is put into a few containers or objects of random kinds, hung up somewhere in
a model, and changed by the forward in a random way. `check`, `forecast` and `cure` leave it as it was.
"""

from __future__ import annotations

import argparse
import array
import collections
import functools
import io
import random
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tests.fuzz.state import differences, picture
from torch import Tensor, nn

import unvanish

Change = Callable[[Any], Any]


class Plain:
    """An object with a dictionary."""

    def __init__(self, held: Any) -> None:
        self.held, self.count = held, 0

    def get(self) -> Any:
        return self.held


class Slotted:
    """An object with slots."""

    __slots__ = ("count", "held")

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass(frozen=True)
class Record:
    """A frozen dataclass."""

    held: Any


class Cache(dict[str, Any]):
    """A dict that refuses what it does not like."""

    def __setitem__(self, key: str, value: Any) -> None:
        if len(self) > 1:
            raise KeyError("full")
        super().__setitem__(key, value)


def _strided() -> Tensor:
    return torch.randn(4, 6)[:, ::2]


def _frozen_array() -> Any:
    x = np.arange(4.0)
    x.flags.writeable = False
    return x


def _thaw(x: Any) -> None:
    x.flags.writeable = True
    x[0] = 5


def _with_nan() -> Tensor:
    return torch.tensor([float("nan"), -0.0, 0.0, 1.0])


# things, and how they are changed
THINGS: dict[str, tuple[Callable[[], Any], tuple[Change, ...]]] = {
    "tensor": (
        lambda: torch.zeros(3),
        (
            lambda t: t.add_(1),
            lambda t: t.data.mul_(0).sub_(1),
            lambda t: t.resize_(7),
            lambda t: setattr(t, "data", torch.ones(5)),
            lambda t: setattr(t, "data", t.data.double()),
            lambda t: t.untyped_storage().resize_(0),
            lambda t: t.set_(torch.ones(2)),
            lambda t: t.requires_grad_(),
            lambda t: setattr(t, "note", [1]),
            lambda t: setattr(t, "grad", torch.ones(3)),
            lambda t: t.t_().neg_(),
            lambda t: t.neg_(),
            lambda t: t.unsqueeze_(0),
        ),
    ),
    "integers": (lambda: torch.arange(4), (lambda t: t.add_(1), lambda t: t.zero_())),
    "odd numbers": (_with_nan, (lambda t: t.neg_(), lambda t: t.zero_(), lambda t: t.abs_())),
    "view": (_strided, (lambda t: t.add_(1), lambda t: t.t_(), lambda t: t[0].fill_(9))),
    "expanded": (lambda: torch.zeros(1, 3).expand(4, 3), (lambda t: t[:, :1].data[0].add_(1),)),
    "complex": (lambda: torch.zeros(3, dtype=torch.complex64), (lambda t: t.add_(1j),)),
    "half": (lambda: torch.ones(3, dtype=torch.bfloat16), (lambda t: t.mul_(3),)),
    "flags": (lambda: torch.zeros(3, dtype=torch.bool), (lambda t: t.logical_not_(),)),
    "sparse": (
        lambda: torch.eye(3).to_sparse(),
        (lambda t: t.mul_(2), lambda t: t.add_(t), lambda t: t.zero_()),
    ),
    "trainable": (
        lambda: torch.ones(3, requires_grad=True),
        (
            lambda t: (t * 2).sum().backward(),
            lambda t: t.data.add_(1),
            lambda t: t.requires_grad_(False),
            lambda t: t.register_hook(lambda g: g),
        ),
    ),
    "list": (lambda: [1, 2], (lambda x: x.append(3), lambda x: x.clear(), lambda x: x.reverse())),
    "dict": (
        lambda: {"a": 1, "b": 2},
        (lambda x: x.update(c=3), lambda x: x.pop("a"), lambda x: x.update(a=x.pop("a"))),
    ),
    "ordered": (
        lambda: collections.OrderedDict(a=1, b=2),
        (lambda x: x.move_to_end("a"), lambda x: x.update(a=9), lambda x: x.clear()),
    ),
    "counts": (
        lambda: collections.defaultdict(int),
        (lambda x: x["new"], lambda x: setattr(x, "default_factory", list)),
    ),
    "set": (lambda: {1, 2}, (lambda x: x.add(3), lambda x: x.discard(1), lambda x: x.clear())),
    "deque": (
        lambda: collections.deque([1, 2], maxlen=2),
        (lambda x: x.append(3), lambda x: x.rotate(), lambda x: x.clear()),
    ),
    "bytes": (lambda: bytearray(b"ab"), (lambda x: x.append(3), lambda x: x.clear())),
    "array": (lambda: array.array("i", [1, 2]), (lambda x: x.append(3),)),
    "numbers": (
        lambda: np.zeros((2, 3)),
        (lambda x: x.__iadd__(1), lambda x: x.fill(np.nan), lambda x: setattr(x, "shape", (6,))),
    ),
    "view of numbers": (
        lambda: np.zeros((4, 3))[::2],
        (lambda x: x.__iadd__(1), lambda x: x.base.__iadd__(1)),
    ),
    "objects": (
        lambda: np.array([[1], {}], dtype=object),
        (lambda x: x[0].append(2), lambda x: x.__setitem__(1, 0)),
    ),
    "locked numbers": (_frozen_array, (_thaw,)),
    "torch's generator": (lambda: torch.Generator().manual_seed(1), (lambda g: torch.rand(2, generator=g),)),
    "NumPy's generator": (
        lambda: np.random.default_rng(1),
        (lambda g: g.random(), lambda g: g.normal(size=3)),
    ),
    "NumPy's old generator": (lambda: np.random.RandomState(1), (lambda g: g.randn(), lambda g: g.rand())),
    "Python's generator": (lambda: random.Random(1), (lambda g: g.random(), lambda g: g.gauss(0, 1))),
    "object": (
        lambda: Plain(0),
        (
            lambda o: setattr(o, "count", o.count + 1000),
            lambda o: setattr(o, "new", 1),
            lambda o: delattr(o, "count"),
            lambda o: setattr(o, "__class__", type("Other", (Plain,), {})),
            lambda o: setattr(o, "__dict__", {"held": 1}),
        ),
    ),
    "slots": (lambda: Slotted([1]), (lambda o: setattr(o, "count", 1), lambda o: delattr(o, "held"))),
    "namespace": (lambda: types.SimpleNamespace(n=1), (lambda o: setattr(o, "n", 2),)),
    "file in memory": (
        lambda: io.BytesIO(b"abc"),
        (lambda f: f.read(1), lambda f: f.write(b"xyz!"), lambda f: f.truncate(0)),
    ),
    "text in memory": (lambda: io.StringIO("abc"), (lambda f: f.read(1), lambda f: f.write("xyz!"))),
    "module": (
        lambda: nn.BatchNorm1d(8),
        (
            lambda m: m(torch.randn(4, 8)),
            lambda m: m.eval(),
            lambda m: m.register_buffer("new", torch.zeros(1)),
            lambda m: m.add_module("child", nn.Linear(2, 2)),
            lambda m: delattr(m, "running_mean"),
            lambda m: m.double(),
            lambda m: m.register_forward_hook(lambda *_: None),
            lambda m: m.requires_grad_(False),
            lambda m: m.register_parameter("weight", nn.Parameter(torch.zeros(8))),
            lambda m: setattr(m, "weight", nn.Parameter(torch.ones(8))),
        ),
    ),
}


def _closure(held: Any) -> Any:
    return lambda: held


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda x: [0, x],
    "tuple": lambda x: (x, 1),
    "dict": lambda x: {"k": x},
    "own dict": lambda x: Cache(k=x),
    "ordered dict": lambda x: collections.OrderedDict(k=x),
    "deque": lambda x: collections.deque([x]),
    "object": Plain,
    "slots": Slotted,
    "record": Record,
    "closure": _closure,
    "partial": lambda x: functools.partial(print, x),
    "method": lambda x: Plain(x).get,
    "cycle": lambda x: _tie([x]),
}
PLACES = ("attribute", "of a child", "class", "of a parameter", "of the loss", "of the batch", "default")


def _tie(items: list[Any]) -> list[Any]:
    items.append(items)
    return items


def draw(seed: int) -> tuple[nn.Module, Any, Any, str]:
    """A model, a batch and a loss, and in words what its forward changes where."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    name = r.choice(list(THINGS))
    make, changes = THINGS[name]
    number, where = r.randrange(len(changes)), r.choice(PLACES)
    thing = make()
    held, chain = thing, []
    for _ in range(r.randrange(4)):
        chain.append(r.choice(list(HOLDERS)))
        held = HOLDERS[chain[-1]](held)

    def touch() -> None:
        with torch.enable_grad() if r.random() < 0.5 else torch.no_grad():
            changes[number](thing)

    model = _hang(held, where, touch)
    loss: Any = nn.CrossEntropyLoss()
    batch: Any = (torch.randn(6, 8), torch.randint(0, 2, (6,)))
    if where == "of the loss":
        loss.held = held
    return (
        model,
        batch,
        loss,
        f"{name} changed in way {number}, in {' in '.join(chain) or 'nothing'}, {where}",
    )


def _hang(held: Any, where: str, touch: Callable[[], None]) -> nn.Module:
    """A small net that reaches a thing by some way, and touches it."""
    done: list[int] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, extra: Any = held if where == "default" else None) -> Tensor:
            if not done:  # once: some changes cannot be made twice
                touch()
            return self.head(torch.tanh(self.first(x)))

    net = Net()
    if where == "class":
        Net.held = held
    elif where == "of a child":
        net.first.held = held
    elif where == "of a parameter":
        net.head.weight.held = held
    elif where in ("attribute", "of the loss", "of the batch"):
        net.held = held
    return net


VERBS: dict[str, Callable[[nn.Module, Any, Any], Any]] = {
    "check": unvanish.check,
    "forecast": lambda model, batch, loss: unvanish.forecast(model, (8,)),
    "cure": lambda model, batch, loss: unvanish.cure(model, batch, loss, steps=3, budget=2),
}


def try_one(seed: int, verb: str = "check") -> list[str]:
    """What a verb left changed."""
    model, batch, loss, words = draw(seed)
    before = picture(model=model, batch=batch, loss=loss)
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            VERBS[verb](model, batch, loss)
    except Exception as error:
        said = f" ({type(error).__name__})"
    after = picture(model=model, batch=batch, loss=loss)
    return [f"seed {seed}, {verb}{said}: {words}: {d}" for d in differences(before, after)]


def run(count: int, seed: int, verb: str) -> list[str]:
    """Examine so many models; what was left changed."""
    return [words for number in range(seed, seed + count) for words in try_one(number, verb)[:2]]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=tuple(VERBS), default="check")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    changed = run(chosen.count, chosen.seed, chosen.verb)
    print(*changed, sep="\n")
    print(f"{chosen.count} models, {len({c.split(',')[0] for c in changed})} changed")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
