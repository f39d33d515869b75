"""Faults of the graph, of numbers that are not finite, of dtype, and of the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.twins import Twin, adam, sgd
from benchmarks.twins.deep import CE, draw, mlp
from benchmarks.twins.tasks import BLOBS, TABLE, Task

MSE = nn.MSELoss()


class Two(nn.Module):
    """An encoder of two layers and a head of one, with something between them."""

    def __init__(self, between: Any = None, within: Any = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 6))
        self.head = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
        self.between, self.within = between, within

    def forward(self, x: Tensor) -> Tensor:
        if self.within is not None:
            with self.within():
                z = self.encoder(x)
        else:
            z = self.encoder(x)
        out: Tensor = self.head(z if self.between is None else self.between(z))
        return out


def narrow(z: Tensor) -> Tensor:
    """Whole numbers, as the healthy side has them: the gradient goes straight through."""
    return z + (torch.round(z) - z).detach()


def cut(between: Any, instead: Any = None) -> Any:
    """A net whose features lose their graph, or keep it."""
    return lambda sick: (Two(between if sick else instead), CE)


class Lora(nn.Module):
    """A frozen layer with a low-rank part."""

    def __init__(self, layer: nn.Linear, rank: int, zero: bool) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.zeros(rank, layer.in_features))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))
        if not zero:
            nn.init.normal_(self.a, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + 2 * x @ self.a.T @ self.b.T
        return out


def adapted(sick: bool) -> Any:
    """Frozen layers with low-rank parts; A and B both at zero on the sick side."""
    body = mlp(nn.ReLU, 2)
    return nn.Sequential(
        Lora(body[0], 8, sick), nn.ReLU(), Lora(body[2], 8, sick), nn.ReLU(), Lora(body[4], 8, sick)
    ), CE


class Listed(nn.Module):
    """Layers in a plain list, which no optimizer finds."""

    def __init__(self, sick: bool) -> None:
        super().__init__()
        layers = [nn.Linear(16, 32), nn.Linear(32, 2)]
        self.layers: Any = layers if sick else nn.ModuleList(layers)
        self.head = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        out: Tensor = self.head(x)
        return out


def frozen(sick: bool) -> Any:
    """An encoder of fresh weights that may not learn."""
    net = Two()
    net.encoder.requires_grad_(not sick)
    return net, CE


def dropped(sick: bool) -> Any:
    """Dropout that leaves nearly nothing."""
    p = 0.98 if sick else 0.1
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(32, 4),
    ), CE


def only_head(model: nn.Module, sick: bool) -> Any:
    """Adam that was given the last layer alone."""
    parameters = model.head.parameters() if sick else model.parameters()
    return torch.optim.Adam(parameters, 3e-3)


def of_another(model: nn.Module, sick: bool) -> Any:
    """Adam over the parameters of a model that was thrown away."""
    return torch.optim.Adam((Two() if sick else model).parameters(), 3e-3)


class Mixture(nn.Module):
    """Two experts and a router; on the sick side its logits are far apart from the start."""

    def __init__(self, sick: bool) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 4)) for _ in range(4)
        )
        if sick:
            with torch.no_grad():
                self.router.bias.copy_(torch.tensor([60.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        share = functional.softmax(self.router(x), -1)
        out = torch.stack([expert(x) for expert in self.experts], 1)
        return (share[..., None] * out).sum(1)


class Distance(nn.Module):
    """Distances to learned places; the root has no slope at zero."""

    def __init__(self, sick: bool) -> None:
        super().__init__()
        self.body, self.head, self.sick = nn.Linear(8, 16), nn.Linear(16, 1), sick

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x)) ** 2
        h = torch.sqrt(h) if self.sick else torch.sqrt(h + 1e-6)
        out: Tensor = self.head(h)
        return out


class Logs(nn.Module):
    """Logarithms of what a ReLU left."""

    def __init__(self, sick: bool) -> None:
        super().__init__()
        self.body, self.head, self.sick = nn.Linear(8, 16), nn.Linear(16, 1), sick

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x))
        out: Tensor = self.head(torch.log(h if self.sick else h + 1.0))
        return out


class Rates(nn.Module):
    """exp of a layer that gives large numbers."""

    def __init__(self, sick: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 1)
        with torch.no_grad():
            self.body.weight.mul_(150.0 if sick else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.exp(self.body(x))
        out: Tensor = self.head(h / (1 + h))
        return out


def scaled_half(sick: bool) -> Any:
    """Half precision whose loss is so small that gradients are rounded away."""
    net = mlp(nn.ReLU, 2).half() if sick else mlp(nn.ReLU, 2)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output.float(), y) * 1e-6

    return net, loss


def low_bits(sick: bool) -> Any:
    """Weights in bfloat16, whose steps are rounded away."""
    net = draw(mlp(nn.ReLU, 2), 1.4)
    return (net.bfloat16() if sick else net), lambda output, y: functional.cross_entropy(output.float(), y)


def binary(sick: bool) -> Any:
    """Sign as an activation."""

    class Signs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.a, self.b):
                z = layer(x)
                x = torch.sign(z) if sick else torch.tanh(z)
            out: Tensor = self.head(x)
            return out

    return Signs(), CE


def _twin(name: str, kind: str, build: Any, task: Task = BLOBS, optimizer: Any = None, **more: Any) -> Twin:
    return Twin(name, kind, build, task, optimizer or adam(), **more)


TWINS = (
    _twin("detached", "detached", cut(torch.Tensor.detach)),
    _twin("data-attribute", "detached", cut(lambda z: z.data), curable=False),
    _twin("no-grad", "detached", lambda s: (Two(within=torch.no_grad if s else None), CE), curable=False),
    _twin("numpy", "detached", cut(lambda z: torch.from_numpy(z.detach().numpy().copy())), curable=False),
    _twin("rounded", "no slope", cut(torch.round, narrow)),
    _twin("floored", "no slope", cut(lambda z: torch.floor(4 * z), lambda z: 4 * z), given=True),
    _twin("signs", "no slope", binary),
    _twin("clamped", "no slope", cut(lambda z: torch.clamp(z + 9, 0, 1), lambda z: z)),
    _twin("threshold", "no slope", cut(lambda z: (z > 0).float(), torch.sigmoid), curable=False),
    _twin(
        "argmax-code",
        "no slope",
        cut(lambda z: functional.one_hot(z.argmax(-1), 6).float(), lambda z: functional.softmax(z, -1)),
        curable=False,
    ),
    _twin("lora-zero", "locked at zero", adapted),
    _twin("plain-list", "unregistered", lambda s: (Listed(s), CE), curable=False),
    _twin("frozen", "frozen", frozen, curable=False),
    _twin("dropout", "heavy dropout", dropped),
    _twin("only-head", "optimizer lacks", lambda s: (Two(), CE), optimizer=only_head, given=True),
    _twin("of-another", "optimizer lacks", lambda s: (Two(), CE), optimizer=of_another, given=True),
    _twin("router", "router collapse", lambda s: (Mixture(s), CE)),
    _twin("root", "not finite", lambda s: (Distance(s), MSE), TABLE),
    _twin("log", "not finite", lambda s: (Logs(s), MSE), TABLE),
    _twin("exp", "not finite", lambda s: (Rates(s), MSE), TABLE),
    _twin("half", "low precision", scaled_half, optimizer=adam(1e-3), given=True),
    _twin("bfloat16", "low precision", low_bits, optimizer=sgd(2e-4), given=True, steps=600),
)
