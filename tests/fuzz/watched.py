"""Loops as people write them, short; each returns what must be the same with and without a watch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Look = Callable[..., Any]


class Unwatched:
    """Stands where a watch would."""

    def step(self, loss: Any = None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


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
    for x, y in _batches(4, 8, 6):
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
    for x, y in _batches(4, 8, 6):
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
    for step, (x, y) in enumerate(_batches(4, 8, 6)):
        for px, py in zip(x.chunk(2), y.chunk(2), strict=True):
            loss = nn.functional.cross_entropy(model(px), py) / 2
            loss.backward()
            losses.append(loss.item())
        with torch.no_grad():
            losses.append(float(model(x).sum()))
        for optimizer in both:
            if step == 2:
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


def _train(model: nn.Module, look: Look, *shape: int, rate: float = 1e-2, steps: int = 4) -> list[Any]:
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
    for x, y in _batches(4, 8, 6):
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


# those without a record first, as their faults are tried faster
LOOPS: dict[str, tuple[Callable[[Look], list[Any]], dict[str, Any]]] = {
    "accumulated": (accumulated, {"every": 2}),
    "closure": (closure, {"every": 1}),
    "handmade": (handmade, {"every": 1}),
    "recurrent": (recurrent, {"every": 1}),
    "transformer": (transformer, {"every": 1, "on_finding": "warn"}),
    "guarded": (plain, {"every": 2, "on_finding": ["silent", "guard"]}),
    "by budget": (plain, {"budget": 0.01}),
    "scaled": (scaled, {"every": 2}),
    "plain": (plain, {"every": 1, "run": True}),
    "diverging": (diverging, {"every": 2, "on_finding": ["log", "snapshot"], "run": True}),
    "recorded": (recurrent, {"every": 2, "run": True}),
    "together": (together, {"every": 1, "run": True}),
}


def run_alone(name: str) -> list[Any]:
    """A loop without a watch."""
    return LOOPS[name][0](lambda *args, **more: Unwatched())


def same(a: list[Any], b: list[Any]) -> bool:
    """Whether two runs gave the same, bit for bit."""
    return len(a) == len(b) and all(
        torch.equal(x.view(torch.uint8), y.view(torch.uint8)) if isinstance(x, Tensor) else repr(x) == repr(y)
        for x, y in zip(a, b, strict=True)
    )
