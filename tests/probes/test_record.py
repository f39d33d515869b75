"""The recorder against autograd in float64: the same gradients, whatever the module, and no trace left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.probes.kept import Functional, assert_same, log, parameter_logs, snapshot
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unvanish.core.ledger import ledger
from unvanish.probes import ModelCrash, record

CE = nn.CrossEntropyLoss()


class Block(nn.Module):
    """A residual block that writes in place."""

    def __init__(self, channels: int, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        y += x
        return F.relu(y, inplace=True)


class Residual(nn.Module):
    """A few blocks, optionally checkpointed."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([Block(8, norm=reentrant is None) for _ in range(4)])
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """torch's own attention with its weights, then an encoder layer, to a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y, weights = self.attention(x, x, x)
        return {"logits": self.head(self.layer(x + y).mean(1)), "weights": weights}


class Recurrent(nn.Module):
    """A fused bidirectional LSTM of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


class Loop(nn.Module):
    """A cell called at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 9)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.head(h)


class Language(nn.Module):
    """Tied embeddings and positions, on whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 16), nn.Embedding(6, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.tokens(x) + self.places(torch.arange(x.shape[1]))))


def classes(output: Any, y: Tensor) -> Tensor:
    return F.cross_entropy(output["logits"] if isinstance(output, dict) else output, y)


def every_token(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(0, 1), y.flatten())


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 3, 6, 6), torch.randint(0, 3, (5,))


def sequences(width: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(5, 8, width), torch.randint(0, 3, (5,))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Callable[..., Tensor]]] = {
    "functional, in-place, shared": (
        Functional,
        lambda: (torch.randn(5, 6), torch.randint(0, 3, (5,))),
        classes,
    ),
    "residual": (Residual, images, classes),
    "checkpointed": (lambda: Residual(False), images, classes),
    "checkpointed, reentrant": (lambda: Residual(True), images, classes),
    "attention": (Attention, lambda: sequences(16), classes),
    "fused recurrence": (Recurrent, sequences, classes),
    "loop over a cell": (Loop, sequences, classes),
    "tied embeddings": (
        Language,
        lambda: (torch.randint(0, 11, (4, 6)), torch.randint(0, 11, (4, 6))),
        every_token,
    ),
}


@pytest.fixture(params=MODELS, ids=str)
def example(request: pytest.FixtureRequest) -> tuple[nn.Module, Any, Any]:
    """A model with its batch and loss."""
    torch.manual_seed(0)
    build, batch, loss = MODELS[request.param]
    return build(), batch(), loss


def oracle(model: nn.Module, batch: Any, loss: Any) -> dict[str, float]:
    """ln ||dL/dp|| of every parameter by plain autograd, dropout off by its probabilities."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        if isinstance(module, Residual) and module.reentrant:
            module.reentrant = False  # torch's own reentrant checkpoints refuse autograd.grad
    x, y = batch
    value = loss(model(x), y)
    named = dict(model.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return {n: log(g) for n, g in zip(named, found, strict=True) if g is not None}


def test_parameter_gradients_are_autograds(example: tuple[nn.Module, Any, Any]) -> None:
    model, batch, loss = example
    measured = parameter_logs(record(model, batch, loss))
    for name, expected in oracle(model, batch, loss).items():
        if expected > -12:  # gradients that are zero by structure are rounding noise
            assert measured[name] == pytest.approx(expected, abs=1e-4), name


def test_the_input_gradient_is_autograds(example: tuple[nn.Module, Any, Any]) -> None:
    model, (x, y), loss = example
    trace = record(model, (x, y), loss)
    if not x.is_floating_point():
        return
    oracle(model, (x, y), loss)  # turns dropout off
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(model(leaf), y), leaf)
    (place,) = trace.where("input")
    assert trace.value(place, "backward_log") == pytest.approx(math.log(float(gradient.norm())), abs=1e-4)


def test_the_ledger_adds_up(example: tuple[nn.Module, Any, Any]) -> None:
    trace = record(*example)
    axis, book = trace.depth(), ledger(trace)
    assert axis is not None and book is not None
    log = trace.column("backward_log")
    total = (log[axis.sites[-1]] - log[axis.sites[0]]) / math.log(10)
    assert book.total == pytest.approx(total, abs=1e-9)
    for row in book.rows:
        if row.children:
            assert sum(child.decades for child in row.children) == pytest.approx(row.decades, abs=1e-9)
        if row.parts:
            assert sum(row.parts.values()) == pytest.approx(row.decades, abs=1e-9)


def test_no_trace_is_left(example: tuple[nn.Module, Any, Any]) -> None:
    model, batch, loss = example
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = snapshot(model)
    record(model, batch, loss)
    assert_same(before, snapshot(model))


def test_no_trace_is_left_by_a_crash() -> None:
    class Crashing(Residual):
        def forward(self, x: Tensor) -> Tensor:
            random.random(), np.random.rand(), torch.rand(1)
            self.seen = True
            self.stem.weight.data.add_(1)
            super().forward(x)
            raise ZeroDivisionError("on purpose")

    model = Crashing()
    before = snapshot(model)
    with pytest.raises(ModelCrash, match="on purpose") as caught:
        record(model, images(), classes)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.site == ""
    assert caught.value.trace is not None and caught.value.trace.facts["crash"]
    assert any(s.path == "blocks.3.conv" for s in caught.value.trace.sites)
    for key, (tensor, _) in before["tensors"].items():
        assert torch.equal(tensor, model.state_dict()[key])
    assert before["python"] == random.getstate() and not vars(model).get("seen")


def test_the_innermost_module_of_a_crash_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(ModelCrash) as caught:
        record(model, torch.randn(2, 4))
    assert caught.value.site == "1.1"


def test_a_broken_backward_names_the_module() -> None:
    class Spoiler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            y.add_(1)  # sigmoid keeps its result for the backward
            return y

    with pytest.raises(ModelCrash, match="modified by an inplace") as caught:
        record(Spoiler(), torch.randn(2, 4))
    assert caught.value.site == "inner.1"


def test_gradients_beyond_float32_are_numbers() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(
        *[layer for _ in range(400) for layer in (nn.Linear(8, 8), nn.Tanh())], nn.Linear(8, 2)
    )
    batch = torch.randn(4, 8), torch.randint(0, 2, (4,))
    trace = record(deep, batch, CE)
    (place,) = trace.where("input")
    wide = deep.double()
    leaf = batch[0].double().requires_grad_()
    (exact,) = torch.autograd.grad(CE(wide(leaf), batch[1]), leaf)
    expected = math.log(float(exact.norm()))
    assert expected < -200
    assert trace.value(place, "backward_log") == pytest.approx(expected, abs=1e-2)
    assert parameter_logs(trace)["0.weight"] < -200


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_the_scale_of_the_loss_only_shifts_the_logs(scale: float) -> None:
    torch.manual_seed(0)
    model, batch = Residual(), images()
    plain, scaled = record(model, batch, CE), record(model, batch, lambda o, y: CE(o, y) * scale)
    axis = plain.depth()
    assert axis is not None
    shift = scaled.column("backward_log")[list(axis.sites)] - plain.column("backward_log")[list(axis.sites)]
    assert shift == pytest.approx(math.log(scale), abs=1e-3)


def test_the_slope_of_an_activation_is_its_derivative() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.Sigmoid(), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 1))
    x = torch.randn(20, 6)
    trace = record(model, x)
    z = model[0](x)
    p = torch.sigmoid(z).detach()
    (place,) = [i for i, s in enumerate(trace.sites) if s.label == "1"]
    assert trace.value(place, "slope_sq") == pytest.approx(float((p * (1 - p)).square().mean()), rel=1e-5)


def test_wrapped_models_are_seen_through() -> None:
    torch.manual_seed(0)
    model, batch = Functional(), (torch.randn(5, 6), torch.randint(0, 3, (5,)))
    expected = parameter_logs(record(model, batch, CE))
    for wrapped in (torch.compile(model, backend="eager"), nn.DataParallel(model)):
        assert parameter_logs(record(wrapped, batch, CE)) == pytest.approx(expected)


def test_autocast_and_no_grad_around_the_call() -> None:
    model, batch = Functional(), (torch.randn(5, 6), torch.randint(0, 3, (5,)))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        trace = record(model, batch, CE)
        assert not torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    assert "bfloat16" in trace.facts["dtypes"]
    assert math.isfinite(parameter_logs(trace)["first.weight"])


def test_used_reachable_and_optimised_parameters() -> None:
    class Partly(Functional):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.gain = nn.Linear(3, 3), nn.Parameter(torch.ones(12))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.shared(self.first(x).detach())))

    model = Partly()
    model.head.bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model.shared.parameters(), lr=0.1)
    trace = record(model, (torch.randn(5, 6), torch.randint(0, 3, (5,))), CE, optimizer=optimizer)
    facts = {trace.sites[i].path: trace.sites[i].facts for i in trace.where("parameter")}
    assert facts["first.weight"]["used"] and not facts["first.weight"]["reachable"]
    assert not facts["spare.weight"]["used"] and not facts["gain"]["used"]
    assert facts["shared.weight"]["reachable"] and facts["shared.weight"]["optimised"]
    assert not facts["head.weight"]["optimised"] and not facts["head.bias"]["trainable"]
    assert [cut["how"] for cut in trace.facts["graph_cuts"]] == ["detach"]


def test_what_stops_a_gradient_is_told_from_what_passes_zeros_on() -> None:
    class Rounding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.round(3 * self.b(torch.tanh(self.a(x)))))

    trace = record(Rounding(), torch.randn(6, 4))
    stops = [s for s in trace.sites if s.facts.get("kills")]
    assert [s.kind for s in stops] == ["round"]
    assert stops[0].facts["kills_because"] == "operation" and stops[0].facts["starved"] == 4


def test_a_zero_parameter_is_told_from_a_zero_derivative() -> None:
    class SkipInit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.alpha, self.branch = nn.Parameter(torch.zeros(())), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.alpha * self.branch(x)

    trace = record(SkipInit(), torch.randn(6, 4))
    assert {s.facts["kills_because"] for s in trace.sites if s.facts.get("kills")} == {"zero parameter"}


def test_gradients_that_are_zero_by_structure_are_told() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.norm(self.a(x))).view(4, 5, 8)
            return F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))

    torch.manual_seed(0)
    trace = record(Net(), torch.randn(20, 6), lambda o: o.square().mean())
    zero = {trace.sites[i].path for i in trace.where("parameter", zero_by_structure=True)}
    assert zero == {"a.bias", "k.bias"}


def test_the_key_third_of_a_packed_bias_is_told_as_zero_by_structure() -> None:
    torch.manual_seed(0)
    net = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(net.in_proj_bias)
    x = torch.randn(4, 5, 12)
    trace = record(net, {"query": x, "key": x, "value": x}, lambda o: o[0].square().mean())
    assert [trace.sites[i].path for i in trace.where("parameter", zero_third=True)] == ["in_proj_bias"]


def test_every_module_call_is_a_site() -> None:
    trace = record(Residual(), images(), CE)
    paths = {site.path for site in trace.sites if site.role == "node"}
    assert {name for name, _ in Residual().named_modules()} - {"blocks"} <= paths
    (place,) = [
        i for i, s in enumerate(trace.sites) if s.path == "blocks.2" and s.facts["family"] == "module"
    ]
    assert math.isfinite(trace.value(place, "backward_log"))
