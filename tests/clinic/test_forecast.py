"""`forecast`: predicted and measured on every kind of net, the same rules, and what it refuses."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.forecast import predict_trace
from unvanish.core import depth
from unvanish.core.trace import Trace
from unvanish.probes import CheckError, ModelCrash, record
from unvanish.probes.program.outline import outline
from unvanish.reports.diagnosis import text


def mlp(act: Any, layers: int = 16, width: int = 256, norm: Any = None) -> nn.Module:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(width, width), *([norm(width)] if norm else []), act()]
    return nn.Sequential(*parts, nn.Linear(width, 10))


def cnn(layers: int = 10, channels: int = 128, norm: bool = False) -> nn.Module:
    parts: list[nn.Module] = []
    for k in range(layers):
        parts += [nn.Conv2d(channels if k else 3, channels, 3, padding=1)]
        parts += [*([nn.BatchNorm2d(channels)] if norm else []), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Residual(nn.Module):
    def __init__(self, place: str, width: int = 256) -> None:
        super().__init__()
        self.place = place
        self.a, self.b = (nn.ModuleList(nn.Linear(width, width) for _ in range(8)) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(8))
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.kaiming_normal_(p)

    def forward(self, x: Tensor) -> Tensor:
        for a, b, norm in zip(self.a, self.b, self.norms, strict=True):
            read = norm(x) if self.place == "pre" else x
            x = x + b(torch.relu(a(read)))
            x = norm(x) if self.place == "post" else x
        return x


class Tokens(nn.Module):
    def __init__(self, first: bool) -> None:
        super().__init__()
        make = lambda: nn.TransformerEncoderLayer(  # noqa: E731
            128, 4, 512, 0.0, "gelu", batch_first=True, norm_first=first
        )
        self.layers = nn.ModuleList(make() for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.mean(1)


class Experts(nn.Module):
    """Rows go through one of four experts, sorted by expert, as mixtures of experts do it."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, width, width) * (2 / width) ** 0.5)
        self.down = nn.Parameter(torch.randn(4, width, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.arange(1, 5, dtype=torch.int32, device=x.device) * (len(x) // 4)
        h = torch.relu(torch._grouped_mm(x, self.up.transpose(-2, -1), offs=ends))
        return torch._grouped_mm(h, self.down.transpose(-2, -1), offs=ends)


class Standardised(nn.Module):
    """A convolution with weight standardisation (Qiao et al. 2019), written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.weight.mean((1, 2, 3), keepdim=True), self.weight.var((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, (self.weight - mean) / torch.sqrt(var * 27 + 1e-4)).mean((2, 3))


NETS: dict[str, tuple[Any, tuple[int, ...], float]] = {  # the net, a sample's shape, nats a layer allowed
    "tanh": (lambda: mlp(nn.Tanh), (256,), 0.02),
    "sigmoid": (lambda: mlp(nn.Sigmoid), (256,), 0.04),
    "gelu": (lambda: mlp(nn.GELU), (256,), 0.04),
    "leaky relu": (lambda: mlp(lambda: nn.LeakyReLU(0.2)), (256,), 0.05),
    "batch norm": (lambda: mlp(nn.ReLU, norm=nn.BatchNorm1d), (256,), 0.04),
    "layer norm": (lambda: mlp(nn.ReLU, norm=nn.LayerNorm), (256,), 0.03),
    "convolutions": (cnn, (3, 10, 10), 0.04),
    "residual": (lambda: Residual("none"), (256,), 0.03),
    "pre-norm": (lambda: Residual("pre"), (256,), 0.03),
    "post-norm": (lambda: Residual("post"), (256,), 0.05),
    "pre-norm transformer": (lambda: Tokens(True), (12, 128), 0.02),
    "post-norm transformer": (lambda: Tokens(False), (12, 128), 0.03),
}


def slope(trace: Trace) -> float:
    read = depth.read(trace)
    assert read is not None
    return read.log_ratio / read.steps


@pytest.mark.parametrize("name", NETS)
def test_the_predicted_gain_is_the_measured_one(name: str) -> None:
    make, size, allowed = NETS[name]
    torch.manual_seed(0)
    net, x = make(), torch.randn(16, *size)
    assert slope(predict_trace(net, x)) == pytest.approx(slope(record(net, x)), abs=allowed)


def test_forward_statistics_too() -> None:
    torch.manual_seed(0)
    net, x = mlp(nn.Tanh), torch.randn(16, 256)
    theory, real = predict_trace(net, x), record(net, x)
    for site in real.depth().sites[::4]:  # type: ignore[union-attr]
        twin = next(
            i
            for i, s in enumerate(theory.sites)
            if (s.path, s.kind) == (real.sites[site].path, real.sites[site].kind)
        )
        for statistic, allowed in (
            ("forward_rms", 0.1),
            ("spread", 0.3),
            ("slope_sq", 0.03),
            ("weight_log", 1e-6),
        ):
            measured = real.value(site, statistic)
            if math.isfinite(measured):
                assert theory.value(twin, statistic) == pytest.approx(measured, rel=allowed, abs=1e-6), (
                    statistic
                )


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: mlp(nn.Sigmoid, 20, 64), "ACT002"),
        (lambda: mlp(nn.Tanh, 20, 64), "INI001"),
        (lambda: Residual("none", 64), "DEP002"),
    ],
)
def test_the_same_rules_name_the_cause(make: Any, code: str) -> None:
    torch.manual_seed(0)
    found = unvanish.forecast(make(), (64,))
    assert found.codes()[0] == code == unvanish.check(make(), torch.randn(8, 64), confirm=False).codes()[0]
    assert found.trace.facts["predicted"]
    assert "predicted, nothing was run" in str(found)


def test_a_healthy_net_is_predicted_healthy() -> None:
    torch.manual_seed(0)
    net = mlp(nn.ReLU, 8)
    for m in net.modules():
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight)
            nn.init.zeros_(m.bias)
    assert unvanish.forecast(net, (256,)).healthy


def test_the_model_is_not_touched_and_not_run() -> None:
    class Shy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.ran = nn.Linear(8, 8), False

        def forward(self, x: Tensor) -> Tensor:
            assert x.is_meta
            self.ran = True
            return torch.tanh(self.layer(x))

    net = Shy()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    unvanish.forecast(net, (8,))
    assert not net.ran
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(p.grad is not None for p in net.parameters())


def test_a_model_without_numbers_is_taken_at_its_initialisation() -> None:
    with torch.device("meta"):
        hollow = mlp(nn.Tanh)
    torch.manual_seed(0)
    assert slope(predict_trace(hollow, torch.randn(8, 256))) == pytest.approx(
        slope(predict_trace(mlp(nn.Tanh), torch.randn(8, 256))), abs=0.01
    )


def test_shared_and_functional_layers_and_token_ids() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer, self.head = nn.Embedding(20, 32), nn.Linear(32, 32), nn.Linear(32, 20)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids)
            for _ in range(3):
                x = x + torch.nn.functional.gelu(self.layer(x))
            return self.head(x)  # type: ignore[no-any-return]

    found = unvanish.forecast(Net(), batch=torch.randint(0, 20, (4, 6)))
    assert found.trace.depth() is not None


class ByHand(nn.Module):
    """Sixteen layers, each followed by a function of the user's own."""

    def __init__(self, function: Any, gain: float = 1.0, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(16))
        self.weight, self.function = nn.Parameter(torch.full((width,), 1.3)), function
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0.0, gain / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.function(layer(x), self.weight)
        return x


def rms(x: Tensor, w: Tensor) -> Tensor:
    return torch.tanh(0.5 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w)


def rms_by_norm(x: Tensor, w: Tensor) -> Tensor:
    return torch.relu(w * (x / (x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5 + 1e-6)))


def rms_in_float32(x: Tensor, w: Tensor) -> Tensor:
    read = x.float()
    return torch.tanh(w * (read * (1 / torch.sqrt((read * read).mean(-1, keepdim=True) + 1e-6))).type_as(x))


def layer_by_hand(x: Tensor, w: Tensor) -> Tensor:
    return torch.tanh(w * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6))


OWN: dict[str, tuple[Any, float]] = {
    "rms norm": (rms, 0.7),
    "rms norm by a norm": (rms_by_norm, 0.7),
    "rms norm in float32": (rms_in_float32, 3.0),
    "layer norm": (layer_by_hand, 0.7),
    "normalize": (lambda x, w: torch.relu(16 * w * nn.functional.normalize(x, dim=-1)), 2.0),
    "sin": (lambda x, w: torch.sin(x), 1.5),
    "cos": (lambda x, w: torch.cos(x), 1.5),
    "atan": (lambda x, w: torch.atan(x), 1.5),
    "abs": (lambda x, w: x.abs(), 1.0),
    "clamp": (lambda x, w: x.clamp(-0.5, 1.0), 1.4),
    "exp": (lambda x, w: torch.exp(-x.abs()), 1.4),
    "silu": (lambda x, w: x * torch.sigmoid(x), 1.4),
    "gelu": (lambda x, w: 0.5 * x * (1 + torch.tanh(0.79788 * (x + 0.044715 * x**3))), 2.0),
    "snake": (lambda x, w: x + torch.sin(x) ** 2, 0.9),
    "expm1": (lambda x, w: torch.expm1(0.3 * x), 2.0),
}


@pytest.mark.parametrize("name", OWN)
def test_functions_and_norms_written_by_hand(name: str) -> None:
    function, gain = OWN[name]
    torch.manual_seed(0)
    net, x = ByHand(function, gain), torch.randn(16, 256)
    trace = predict_trace(net, x)
    assert not any("identities" in sentence for sentence in trace.facts["assumptions"])
    assert slope(trace) == pytest.approx(slope(record(net, x)), abs=0.03)


TWINS: dict[str, Any] = {
    "silu": lambda x, w: nn.functional.silu(x),
    "gelu": lambda x, w: nn.functional.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("gain", [0.8, 1.4, 2.0])
def test_a_function_written_by_hand_is_forecast_as_the_ready_made_one(name: str, gain: float) -> None:
    slopes = []
    for function in (OWN[name][0], TWINS[name]):
        torch.manual_seed(0)
        slopes.append(slope(predict_trace(ByHand(function, gain), torch.randn(16, 256))))
    assert slopes[0] == pytest.approx(slopes[1], abs=2e-3)


def test_unknown_operations_are_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(self.layer(x), 1)

    told = unvanish.forecast(Odd(), (8,)).trace.facts["assumptions"]
    assert any("cumsum" in sentence for sentence in told)


def test_a_convolution_with_standardised_weights_is_forecast() -> None:
    found = unvanish.forecast(Standardised(), (3, 8, 8))
    assert not found.findings and any("conv2d" in site.path for site in found.trace.sites)


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch multiplies no groups")
def test_a_mixture_of_experts_is_predicted() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(*(Experts() for _ in range(8))), torch.randn(32, 256)
    told = predict_trace(net, x)
    assert not any("grouped" in sentence for sentence in told.facts["assumptions"])
    assert slope(told) == pytest.approx(slope(record(net, x)), abs=0.03)


def test_what_it_refuses() -> None:
    net = nn.Linear(4, 4)
    with pytest.raises(CheckError, match="either input_size"):
        unvanish.forecast(net)
    with pytest.raises(CheckError, match="the shape of one sample"):
        unvanish.forecast(net, (0,))
    with pytest.raises(ModelCrash, match="the model raised RuntimeError"):
        unvanish.forecast(net, (5,))


def test_a_model_that_needs_numbers_gets_two_samples_of_noise() -> None:
    class Peeks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.layer(x)) if float(x.square().sum()) > 0 else x

    net = Peeks()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert unvanish.forecast(net, (4,)).trace.depth() is not None
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_rectified_stream_is_not_centred() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(10))
            self.norms = nn.ModuleList(nn.BatchNorm1d(256) for _ in range(10))

        def forward(self, x: Tensor) -> Tensor:
            for layer, norm in zip(self.layers, self.norms, strict=True):
                x = torch.relu(x + norm(layer(x)))
            return x

    torch.manual_seed(0)
    net, x = Stream(), torch.randn(32, 256)
    assert slope(predict_trace(net, x)) == pytest.approx(slope(record(net, x)), abs=0.06)


def test_check_shows_theory_beside_the_measurement() -> None:
    torch.manual_seed(0)
    net, x = mlp(nn.Tanh, 10), torch.randn(16, 256)
    theory = unvanish.check(net, x).trace.facts["theory"]
    assert theory["predicted"] == pytest.approx(theory["measured"], abs=0.2)
    assert theory["apart"] == ()
    ones, r, p = torch.ones(256), torch.randn(256), torch.randn(256)
    p -= (p @ r) / (r @ r) * r  # the gradient comes along r, and the layer below reads it along p
    with torch.no_grad():
        net.get_parameter("10.weight").copy_(torch.outer(ones, r) / 256)
        net.get_parameter("8.weight").copy_(torch.outer(p, ones) / 256)
    apart = unvanish.check(net, x, confirm=False)
    assert any(label == "8" for label, _, _ in apart.trace.facts["theory"]["apart"])
    assert "they differ at 8" in text.render(apart, verbose=True)


def test_theory_follows_activations_in_place() -> None:
    totals = []
    for inplace in (False, True):
        torch.manual_seed(0)
        layers = [p for _ in range(8) for p in (nn.Linear(64, 64), nn.ReLU(inplace))]
        net = nn.Sequential(*layers, nn.Linear(64, 5))
        theory = unvanish.check(net, torch.randn(8, 64), confirm=False).trace.facts["theory"]
        totals.append(theory["predicted"])
        assert slope(predict_trace(net, torch.randn(8, 64))) < 0
    assert totals[0] == pytest.approx(totals[1])


def test_theory_is_worked_out_later_from_what_the_forward_left() -> None:
    torch.manual_seed(0)
    net, x = mlp(nn.Tanh, 6), torch.randn(16, 256)
    at_once = dict(unvanish.check(net, x, confirm=False).trace.facts["theory"])
    later = unvanish.check(net, x, confirm=False).trace.facts["theory"]
    for p in net.parameters():
        nn.init.zeros_(p)
    assert dict(later) == at_once


def test_a_thousand_layers() -> None:
    net = mlp(nn.Tanh, 1000, 32)
    started = time.perf_counter()
    found = unvanish.forecast(net, (32,))
    assert time.perf_counter() - started < 30  # benchmarks/forecast.py measures it
    assert "INI001" in found.codes()


def test_an_outline_costs_no_memory_for_weights() -> None:
    drawn = outline(mlp(nn.ReLU), torch.randn(4, 256))
    assert len([s for s in drawn.program.steps if s.kind == "linear"]) == 17
    assert all(s.facts["taps"].shape == () for s in drawn.program.steps if s.kind == "linear")
