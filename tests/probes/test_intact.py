"""What an examination leaves as it was: things reached, storages, the process, also after an interrupt."""

from __future__ import annotations

import ast
import gc
import itertools
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint as checkpointing
from tests.fuzz.hidden import THINGS, _hang
from tests.fuzz.state import differences, picture
from torch import Tensor, nn

import unvanish
from unvanish.core.omissions import be_strict
from unvanish.probes import ModelCrash
from unvanish.probes.intact import intact

SOURCE = Path(unvanish.__file__).parent
CE = nn.CrossEntropyLoss()


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 8), torch.randint(0, 2, (6,))


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2))


@pytest.mark.parametrize("name", THINGS)
def test_whatever_a_forward_changes_is_put_back(name: str) -> None:
    make, changes = THINGS[name]
    for change in changes:
        thing = make()
        model, given = _hang([{"deep": thing}], "attribute", lambda t=thing, c=change: c(t)), batch()
        before = picture(model=model, batch=given)
        with be_strict(False):
            unvanish.check(model, given, CE)
        assert differences(before, picture(model=model, batch=given)) == []


def test_what_a_crash_leaves_behind_is_put_back() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(8, 2), [0]

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(1)
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
            raise ValueError("no")

    model, given = Fails(), batch()
    before = picture(model=model)
    with pytest.raises(ModelCrash):
        unvanish.check(model, given, CE)
    assert differences(before, picture(model=model)) == []


def test_gradients_that_a_forward_writes_are_put_back() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.side, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.side(x.detach()).sum().backward()
            return self.head(torch.relu(self.layer(x)))

    model, given = Inner(), batch()
    model.side.weight.grad = torch.zeros(8, 8)
    before = picture(model=model, batch=given)
    unvanish.check(model, given, CE)
    assert differences(before, picture(model=model, batch=given)) == []


def test_a_graph_of_the_users_is_still_good() -> None:
    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 2)
            self.mean = nn.Buffer(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            self.mean.mul_(0.9).add_(y.detach().mean(0))
            return y * self.mean.clone() if torch.is_grad_enabled() else y

    model, (x, y) = Averages(), batch()
    loss = (model.layer(x) * model.mean).sum()
    unvanish.check(model, (x, y), CE)
    loss.backward()  # it saved the buffer, which the examination wrote to and put back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_storages_can_still_be_resized(dtype: torch.dtype) -> None:
    for model in (
        small(),
        nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(8, 8), nn.Sigmoid())], nn.Linear(8, 2)),
        nn.Sequential(nn.Unflatten(1, (1, 8)), nn.LSTM(8, 8, batch_first=True), Last(), nn.Linear(8, 2)),
    ):
        model.to(dtype)
        x, y = batch()
        x = x.to(dtype)
        unvanish.check(model, (x, y), CE)
        unvanish.forecast(model, batch=x)
        held = {**model.state_dict(), "x": x, "y": y}
        assert [n for n, t in held.items() if not t.untyped_storage().resizable()] == []


class Last(nn.Module):
    """The last step of a recurrent layer's output."""

    def forward(self, found: tuple[Tensor, Any]) -> Tensor:
        return found[0][:, -1]


# functions that give NumPy only what they made themselves
OWN = {
    "measures.py": {"_little", "means", "_shares", "_never"},
    "together.py": {"_copy"},
    "weights.py": {"taps"},
    "carry.py": {"carry_back"},
    "chronicle.py": {"_transfer"},
}


def test_no_tensor_of_the_users_is_handed_to_numpy() -> None:
    found: list[str] = []
    for folder in ("probes", "clinic", "surgery", "cures"):
        for file in (SOURCE / folder).rglob("*.py"):
            for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(function, ast.FunctionDef) and function.name not in OWN.get(file.name, ()):
                    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call)]
                    names = [c.func.attr for c in calls if isinstance(c.func, ast.Attribute)]
                    found += [f"{file.name}: {function.name}" for n in names if n == "numpy"]
    assert found == []


def test_examinations_in_threads_leave_no_change_of_the_process() -> None:
    before = picture()
    models = [small() for _ in range(3)]

    def work(model: nn.Module) -> None:
        for _ in range(4):
            unvanish.check(model, torch.randn(6, 8))

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    state = torch.get_rng_state()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_rng_state(state)
    random_states = ("process: torch's", "process: python's", "process: numpy's")
    assert [d for d in differences(before, picture()) if not d.startswith(random_states)] == []


def test_another_threads_checkpoints_and_warnings_are_its_own() -> None:
    looks, done, found = threading.Event(), threading.Event(), []

    class Waits(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            looks.set()
            done.wait(5)
            return super().forward(x)

    thread = threading.Thread(target=lambda: unvanish.check(Waits(8, 2), batch(), CE))
    thread.start()
    assert looks.wait(5)
    calls: list[int] = []

    def block(x: Tensor) -> Tensor:
        calls.append(1)
        return torch.relu(x)

    x = torch.randn(4, requires_grad=True)
    for reentrant in (True, False):
        checkpointing.checkpoint(block, x, use_reentrant=reentrant).sum().backward()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.warn("mine", stacklevel=1)
    found += heard
    done.set()
    thread.join()
    assert len(calls) == 4 and len(found) == 1


def test_a_signal_in_the_putting_back_waits_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    before = picture(model=model)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), intact(model) as kept, kept:
        with torch.no_grad():
            model[0].weight.add_(1)
        kept.steps.insert(0, (lambda: signal.raise_signal(signal.SIGINT), None))
    assert signal.getsignal(signal.SIGINT) is handler
    assert differences(before, picture(model=model)) == []


def test_an_exception_in_any_step_of_the_putting_back_makes_it_start_over() -> None:
    model, tries = small(), itertools.count()
    before = picture(model=model)

    def breaks_off() -> None:
        if next(tries) < 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), intact(model) as kept, kept:
        with torch.no_grad():
            model[0].weight.add_(1)
        kept.steps[:] = [pair for step in kept.steps for pair in ((breaks_off, None), step)]
    assert differences(before, picture(model=model)) == []


def test_what_cannot_be_put_back_is_said_and_nothing_else() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 2)
            self.stream, self.unused = iter(range(100)), iter([1, 2])
            self.lock, self.made = threading.Lock(), [(i for i in range(9))]

        def forward(self, x: Tensor) -> Tensor:
            next(self.stream)
            next(self.made[0])
            return self.layer(x)

    found = unvanish.check(Holds(), batch(), CE)
    assert set(found.not_put_back) == {"stream (an open range iterator)", "made[0] (a generator)"}
    assert "stream (an open range iterator)" in str(found)
    assert unvanish.check(small(), batch(), CE).not_put_back == ()


def test_large_things_that_are_no_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unvanish.probes.kept_tensors.LARGE", 1 << 18)
    net = _hang([torch.zeros(1 << 17)], "attribute", lambda: None)
    assert unvanish.check(net, batch(), CE).not_put_back == ()
    net = _hang(held := [torch.zeros(1 << 17)], "attribute", lambda: held[0].add_(1))
    assert "too large" in unvanish.check(net, batch(), CE).not_put_back[0]


def test_the_collector_and_the_random_state_are_as_before_a_cure() -> None:
    deep = nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(8, 8), nn.Sigmoid())], nn.Linear(8, 2))
    given = batch()
    np.random.seed(3)
    before = picture(model=deep, batch=given)
    found = unvanish.cure(deep, given, CE, steps=3, budget=3)
    assert found.attempts or found.prescription
    assert gc.isenabled() and differences(before, picture(model=deep, batch=given)) == []


def test_a_watch_of_the_model_goes_on_while_it_is_put_back(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with (
        unvanish.watch(model, optimizer, run=tmp_path, on_finding="snapshot") as watch,
        intact(model) as kept,
        kept,
    ):
        watch.guard.note("said while it was looked at")
    assert "said while it was looked at" in watch.notes


@pytest.mark.parametrize("share", [0.0001, 1.0])
def test_of_many_small_tensors_those_that_differ_are_put_back(share: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(30 + k, 7) for k in range(40)], nn.BatchNorm1d(3))
    model.register_buffer("nothing", torch.empty(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with intact(model) as kept, kept, torch.no_grad():
        for p in list(model.parameters())[:: int(80 * (1 - share)) + 1]:
            p.add_(1.0)
        versions = [p._version for p in model.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sum(v != p._version for v, p in zip(versions, model.parameters(), strict=True)) >= 1
