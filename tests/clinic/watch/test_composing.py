"""What models and programs do, a watch leaves as it is: the same bits, and no failure inside."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import unvanish


class Made(nn.Module):
    """Two layers around a function of the first one's output."""

    def __init__(self, between: Callable[..., Tensor], width: int = 8) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.first(x)))


def func_grad(m: Any, x: Tensor) -> Tensor:
    return x - 0.1 * torch.func.grad(lambda z: torch.tanh(m.inner(z)).pow(2).sum())(x)


def func_vmap(m: Any, x: Tensor) -> Tensor:
    return torch.func.vmap(lambda row: torch.relu(m.inner(row)))(x)


def func_jvp(m: Any, x: Tensor) -> Tensor:
    return sum(torch.func.jvp(lambda z: torch.tanh(m.inner(z)), (x,), (torch.ones_like(x),)))


def functional_call(m: Any, x: Tensor) -> Tensor:
    changed = {name: 2 * p for name, p in m.inner.named_parameters()}
    return torch.func.functional_call(m.inner, changed, (x,)).relu()


def nested(layout: Any) -> Callable[..., Tensor]:
    def between(m: Any, x: Tensor) -> Tensor:
        parts = [x[:3], x[3:]]
        many = torch.nested.as_nested_tensor(parts, layout=layout)
        return nn.functional.relu(torch.cat(list(m.inner(many).unbind())))

    return between


def checkpointed(reentrant: bool) -> Callable[..., Tensor]:
    return lambda m, x: checkpoint(lambda z: torch.tanh(m.inner(z)), x, use_reentrant=reentrant)


def selectively_checkpointed(m: Any, x: Tensor) -> Tensor:
    saved = [torch.ops.aten.copy_.default, torch.ops.aten.detach.default, torch.ops.aten.addmm.default]
    contexts = partial(create_selective_checkpoint_contexts, saved)
    run = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    return run(lambda z: nn.functional.gelu(m.inner(torch.relu(m.inner(z)))), x)


def inner_backward(m: Any, x: Tensor) -> Tensor:
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(m.inner(z).square().sum(), z, create_graph=True)
    return x - 0.1 * slope


def normalized(m: Any, x: Tensor) -> Tensor:
    return nn.functional.normalize(m.inner(x), dim=-1) + nn.functional.softmax(x, -1)


class Renamed(TorchFunctionMode):
    """A mode of the program that changes what a composition gives."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        return 2 * made if func is nn.functional.normalize else made


class Counted(TorchDispatchMode):
    """Counts every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def under_a_function_mode(m: Any, x: Tensor) -> Tensor:
    with Renamed():
        return normalized(m, x)


def counting(m: Any, x: Tensor) -> Tensor:
    with Counted() as counted:
        x = normalized(m, x)
    return x * counted.count


BETWEEN: dict[str, Callable[..., Tensor]] = {
    "func.grad": func_grad,
    "func.vmap": func_vmap,
    "func.jvp": func_jvp,
    "functional_call": functional_call,
    "nested, strided": nested(torch.strided),
    "nested, jagged": nested(torch.jagged),
    "checkpoint": checkpointed(False),
    "checkpoint, reentrant": checkpointed(True),
    "checkpoint, selective": selectively_checkpointed,
    "a gradient within the forward": inner_backward,
    "a function mode": under_a_function_mode,
    "a dispatch mode": counting,
}


def momentum(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9)


def train(
    make: Callable[[], nn.Module],
    look: dict[str, Any] | None,
    *,
    steps: int = 5,
    forward: Callable[[nn.Module, Tensor], Tensor] = lambda m, x: m(x),
    at: Callable[[int, nn.Module, Any], None] = lambda step, m, o: None,
    optimizer: Callable[..., Any] = momentum,
    shape: tuple[int, ...] = (6, 8),
) -> tuple[list[Any], Any]:
    """A loop; its losses, weights and random state, and the watch. `at` is called before each step."""
    torch.manual_seed(0)
    model = make()
    made = optimizer(model.parameters())
    watch = None if look is None else unvanish.watch(model, made, **look)
    generator, found = torch.Generator().manual_seed(1), []
    for step in range(steps):
        made.zero_grad()
        x = torch.randn(*shape, generator=generator)
        y = torch.randint(0, 3, shape[:1], generator=generator)
        loss = nn.functional.cross_entropy(forward(model, x), y)
        loss.backward()
        at(step, model, made)
        made.step()
        found.append(loss.item())
        del loss
    if watch is not None:
        watch.close()
    return [*found, *[t.clone() for t in model.state_dict().values()], torch.get_rng_state()], watch


def compare(make: Callable[[], nn.Module], **options: Any) -> Any:
    """Train with and without a watch; the watch, if the two are the same and it did not fail."""
    alone, _ = train(make, None, **options)
    seen, watch = train(make, {"every": 1, "on_finding": "silent"}, **options)
    assert watch.failure == ""
    assert len(alone) == len(seen)
    for a, b in zip(alone, seen, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    assert watch.steps == options.get("steps", 5)
    assert torch._C._len_torch_function_stack() == 0
    return watch


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("name", BETWEEN)
def test_what_a_forward_does_stays_the_same(name: str) -> None:
    watch = compare(lambda: Made(BETWEEN[name]))
    trace = watch.diagnosis().trace
    assert {"first", "head"} <= {s.path for s in trace.sites if s.role == "node"}  # the rest is looked at


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_traced_parts() -> None:
    for convert in (torch.jit.script, lambda m: torch.jit.trace(m, torch.randn(2, 8))):
        compare(lambda convert=convert: nn.Sequential(convert(plain()[:2]), nn.Linear(8, 3)))  # type: ignore[misc]


def test_a_frozen_transformer_layer_keeps_its_fused_path() -> None:
    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).requires_grad_(False)
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))

    paths = []

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        model[0].eval()  # type: ignore[index]
        out = model[0](x)  # type: ignore[index]
        paths.append(torch.overrides.has_torch_function((x,)))
        return model(x) + 0 * out.sum()

    watch = compare(make, forward=forward, shape=(6, 3, 8))
    assert any(s.kind == "relu" or s.path == "3" for s in watch.diagnosis().trace.sites)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("how", ["module.compile", "a function, whole graph", "a method"])
def test_compiled_parts_are_not_compiled_again(how: str) -> None:
    compiled = partial(torch.compile, backend="eager")

    def make() -> nn.Module:
        torch._dynamo.reset()
        model = Made(lambda m, x: torch.relu(m.inner(x)))
        if how == "module.compile":
            model.inner.compile(backend="eager")
        elif how == "a method":
            model.inner.forward = compiled(model.inner.forward, fullgraph=True)
        else:
            model.between = compiled(lambda m, x: nn.functional.gelu(m.inner(x)).tanh(), fullgraph=True)
        return model

    def counts() -> int:
        return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    torch._dynamo.utils.counters.clear()
    train(make, None)
    alone = counts()
    torch._dynamo.utils.counters.clear()
    watch = compare(make)
    assert counts() == 2 * alone
    assert any("compiled" in note for note in watch.notes)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_of_the_program_run_in_their_order() -> None:
    heard: list[str] = []

    def make() -> nn.Module:
        model = plain()
        model[0].register_forward_hook(lambda m, a, out: 1.5 * out)
        model.register_full_backward_hook(lambda m, gi, go: heard.append("backward"))
        model[3].weight.register_hook(lambda g: 0.5 * g)
        return model

    def optimizer(parameters: Any) -> Any:
        made = torch.optim.Adam(parameters, 0.01)
        made.register_step_pre_hook(lambda *_: heard.append("before"))
        made.register_step_post_hook(lambda *_: heard.append("after"))
        return made

    compare(make, optimizer=optimizer)
    assert heard == 10 * ["backward", "before", "after"]


@pytest.mark.parametrize("sparse", [torch.optim.SparseAdam, partial(torch.optim.SGD, lr=0.1)])
def test_sparse_gradients(sparse: Any) -> None:
    class Words(nn.Module):
        """An embedding with sparse gradients; not all optimizers take the rest."""

        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 3, sparse=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.words((x.abs() * 3).long().clamp_max(9)).mean(1)

    compare(Words, optimizer=lambda p: sparse(list(p)))


@pytest.mark.parametrize(
    "odd",
    [
        lambda: nn.Sequential(nn.Linear(8, 0), nn.Linear(0, 3)),
        lambda: plain().double(),
        lambda: Made(lambda m, x: torch.view_as_real(torch.fft.fft(x) * m.kernel)[..., 0]),
    ],
    ids=["empty", "double", "complex"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_odd_parameters(odd: Callable[[], nn.Module]) -> None:
    def make() -> nn.Module:
        model = odd()
        if isinstance(model, Made):
            model.kernel = nn.Parameter(torch.randn(8, dtype=torch.complex64))
        return model

    compare(make, forward=lambda m, x: m(x.to(next(m.parameters()).real.dtype)))


def _zero(step: int, model: nn.Module, optimizer: Any) -> None:
    if step in (1, 3):
        optimizer.zero_grad(set_to_none=step == 1)


def _grow(step: int, model: nn.Module, optimizer: Any) -> None:
    if step == 2:
        extra = nn.Parameter(torch.ones(3))
        model.register_parameter("extra", extra)
        optimizer.add_param_group({"params": [extra], "lr": 0.5})
        extra.grad = torch.ones(3)


def _replace(step: int, model: nn.Module, optimizer: Any) -> None:
    if step == 2:
        model[3] = nn.Linear(8, 3)  # type: ignore[index]
        optimizer.add_param_group({"params": list(model[3].parameters())})  # type: ignore[index]
    if step == 3:
        model[0].weight.data = model[0].weight.data[:, :8].clone().t()  # type: ignore[index]


def _freeze(step: int, model: nn.Module, optimizer: Any) -> None:
    model[0].requires_grad_(step % 2 == 0)  # type: ignore[index]


@pytest.mark.parametrize("change", [_zero, _grow, _replace, _freeze])
def test_a_training_that_changes_as_it_goes(change: Any) -> None:
    compare(plain, at=change)


def test_parameters_that_change_their_shape() -> None:
    calls = iter(range(100))

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        if next(calls) % 5 == 2:  # a pruned layer
            for p in (model[0].weight, model[0].bias):  # type: ignore[index]
                p.grad, p.data = None, p.data[:4].clone()
            model[3].weight.grad, model[3].weight.data = None, model[3].weight.data[:, :4].clone()  # type: ignore[index]
        return model(x)

    compare(plain, forward=forward, optimizer=partial(torch.optim.SGD, lr=0.1))


def test_gradients_of_zero_after_a_clipped_step() -> None:
    def at(step: int, model: nn.Module, optimizer: Any) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.0 if step == 1 else 1e-3)

    compare(plain, at=at)


def test_forwards_in_between_are_left_alone() -> None:
    other = nn.Linear(3, 2)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            model(x)
        with torch.inference_mode():
            model.eval()(x)
        model.train()
        shared = nn.Sequential(model, other)  # of which the model is a part
        return model(x) + model(2 * x) + shared(x).sum()

    compare(plain, forward=forward)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_what_the_program_catches_leaves_nothing_behind(kind: type[BaseException]) -> None:
    class Moody(nn.Sequential):
        """Raises in its first forward and in the backward of the second."""

        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            x = self[0](x)
            self.calls += 1
            if self.calls % 3 == 1:
                raise kind("mine")
            x.register_hook(partial(self._back, self.calls))
            return self[3](self[2](self[1](x)))

        def _back(self, call: int, gradient: Tensor) -> None:
            if call % 3 == 2:
                raise RuntimeError("mine too")

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        with contextlib.suppress(kind):
            model(x)
        with contextlib.suppress(RuntimeError):
            model(x).sum().backward()
        assert not torch.overrides._is_torch_function_mode_enabled()
        return model(x)

    compare(lambda: Moody(*plain()), forward=forward)


def test_forwards_and_backwards_in_threads() -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        held: list[Tensor] = []

        def work() -> None:
            out = model[3](model[1](model[0](x)))  # type: ignore[index]
            out.sum().backward()
            model.eval()
            held.append(model(x))
            model.train()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return model(x) + held[0].detach()

    compare(plain, forward=forward)


def test_copies_and_pickles_know_nothing_of_the_watch() -> None:
    torch.manual_seed(0)
    model, loss_function = plain(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu")
    x, y = torch.randn(6, 8), torch.randint(0, 3, (6,))
    things = [model, loss_function, optimizer, scaler]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch = unvanish.watch(model, optimizer, loss_function, scaler=scaler, every=1, on_finding="silent")
        for _ in range(3):
            loss = loss_function(model(x), y)
            copies = [copy.deepcopy(t) for t in things]
            for text in map(pickle.dumps, things):
                assert b"unvanish" not in text
                copies.append(pickle.loads(text))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        out = model(x).detach()
        for criterion in (copies[1], copies[5]):
            assert torch.equal(criterion(out, y), loss_function(out, y))
        for other in (copies[3], copies[7]):
            assert other.step.__self__ is other
        watch.close()
    assert watch.failure == "" and watch.steps == 3


def test_the_program_s_own_modes_do_not_see_our_operations() -> None:
    def count(look: bool) -> int:
        torch.manual_seed(0)
        model = plain()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = unvanish.watch(model, optimizer, every=1, on_finding="silent") if look else None
        names: list[str] = []

        class Noted(TorchFunctionMode):
            """Notes every function."""

            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                names.append(func.__name__)
                return func(*args, **(kwargs or {}))

        with Noted():
            for _ in range(3):
                model(torch.ones(4, 8)).sum().backward()
                optimizer.step()
        if watch is not None:
            watch.close()
            assert watch.failure == "" and any("function mode" in note for note in watch.notes)
        return len(names)

    assert count(True) == count(False)


def test_a_default_device_and_dtype_of_the_program() -> None:
    torch.set_default_device("meta")
    try:

        def make() -> nn.Module:
            return plain().to_empty(device="cpu").apply(_fill)

        def forward(model: nn.Module, x: Tensor) -> Tensor:
            return model(torch.ones(6, 8, device="cpu"))

        for look in ({"every": 1, "on_finding": "silent"},):
            torch.manual_seed(0)
            model = make()
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            with unvanish.watch(model, optimizer, **look) as watch:
                for _ in range(4):
                    forward(model, torch.ones(())).sum().backward()
                    optimizer.step()
            assert watch.failure == "" and watch.steps == 4
    finally:
        torch.set_default_device(None)


def _fill(module: nn.Module) -> None:
    for p in module.parameters(recurse=False):
        nn.init.constant_(p, 0.1)


def test_a_model_compiled_after_the_watch_began_trains_where_warnings_are_errors() -> None:
    def train(watched: bool) -> tuple[list[float], list[str]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = unvanish.watch(model, optimizer, every=1, on_finding="silent") if watched else None
        fast, losses = torch.compile(model, backend="eager"), []
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(fast(torch.randn(4, 8)), torch.tensor([0, 1, 1, 0]))
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        if watch is None:
            return losses, []
        watch.close()
        assert not watch.failure
        return losses, watch.notes

    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.compile(nn.Linear(1, 1), backend="eager")(torch.ones(1, 1))  # what is imported warns on its own
        warnings.filterwarnings("error", message="Using `torch.compile")
        alone, (seen, notes) = train(False), train(True)
    assert seen == alone[0] and any("compiled" in note for note in notes)
    assert warnings.filters == filters
