"""The recorder on what cannot be measured, and on strange models, which it leaves as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.probes.kept import Functional, assert_same, labelled, parameter_logs, small, snapshot
from torch import Tensor, nn

from unvanish.probes import CheckError, record

CE = nn.CrossEntropyLoss()


@pytest.mark.parametrize(
    ("batch", "loss", "said"),
    [
        (None, None, "the batch is None"),
        (torch.randn(0, 6), None, "empty"),
        ((1, 2), None, "no tensor"),
        ((torch.randn(2, 6), 1, 2), None, "pair"),
        ({1: torch.randn(2, 6)}, None, "no text"),
        (torch.randn(2, 6), CE, "no y"),
        (torch.randn(2, 6), "mse", "cannot be called"),
        (torch.randn(2, 6), lambda o: o, "not a scalar"),
        (torch.randn(2, 6), lambda o: o.sum().item(), "scalar"),
        (torch.randn(2, 6), lambda o: o.argmax(), "floating-point"),
    ],
)
def test_wrong_calls_say_what_is_wrong(batch: Any, loss: Any, said: str) -> None:
    with pytest.raises(CheckError, match=said):
        record(Functional(), batch, loss)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("net", "torch.nn.Module"),
        (nn.ReLU(), "no parameters"),
        (nn.LazyLinear(3), "no shape yet"),
        (nn.Linear(2, 2, device="meta"), "meta"),
        (nn.Linear(6, 2).requires_grad_(False), "every parameter is frozen"),
    ],
)
def test_models_that_cannot_be_measured(model: Any, said: str) -> None:
    with pytest.raises(CheckError, match=said):
        record(model, torch.randn(2, 6))


def test_ctrl_c_passes_through() -> None:
    class Interrupted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model = Interrupted(3, 3)
    with pytest.raises(KeyboardInterrupt):
        record(model, torch.randn(2, 3))
    assert not model._forward_hooks


class Spoken(nn.Module):
    """Returns a loss of its own beside its logits, takes its labels as a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"loss": CE(logits, labels), "logits": logits}


class Derivative(nn.Module):
    """Returns a derivative by its input, differentiated twice in all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        (found,) = torch.autograd.grad(torch.tanh(self.layer(x)).sum(), x, create_graph=True)
        return found


class Numpy(nn.Module):
    """Refuses an input that requires a gradient, and writes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> list[Any]:
        self.mean = float(x.numpy().mean())
        return [self.layer(x.mul(2)), None, "text"]


STRANGE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Any]] = {
    "its own loss": (Spoken, lambda: dict(zip(("x", "labels"), labelled(), strict=True)), None),
    "double backward": (Derivative, lambda: torch.randn(5, 6), lambda o: o.square().mean()),
    "refuses gradients": (Numpy, labelled, lambda o, y: CE(o[0], y)),
    "float64": (lambda: small().double(), lambda: torch.randn(5, 6).double(), None),
    "bfloat16": (lambda: small().bfloat16(), lambda: torch.randn(5, 6).bfloat16(), None),
    "complex": (
        lambda: nn.Linear(6, 3, dtype=torch.cfloat),
        lambda: torch.randn(5, 6, dtype=torch.cfloat),
        lambda o: o.abs().mean(),
    ),
    "sparse": (
        lambda: nn.Sequential(nn.Embedding(9, 6, sparse=True), nn.Flatten(), nn.Linear(24, 3)),
        lambda: (torch.randint(0, 9, (5, 4)), torch.randint(0, 3, (5,))),
        CE,
    ),
    "one sample": (small, lambda: (torch.randn(1, 6), torch.tensor([1])), CE),
    "no batch": (small, lambda: torch.randn(6), None),
    "weight normalisation": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
        labelled,
        CE,
    ),
    "spectral normalisation": (lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 3))), labelled, CE),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_models_are_measured_and_left_as_they_were(name: str) -> None:
    torch.manual_seed(0)
    build, batch, loss = STRANGE[name]
    model, given = build(), batch()
    before = snapshot(model)
    trace = record(model, given, loss)
    assert_same(before, snapshot(model))
    trainable = [i for i in trace.where("parameter", trainable=True) if "complex" not in name]
    logs = [trace.value(i, "gradient_log") for i in trainable if trace.sites[i].facts["reachable"]]
    assert all(math.isfinite(x) for x in logs) and (logs or name == "complex")
    assert "NaN" not in str(trace.facts["loss"])


def test_a_ddp_model_is_seen_through(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(small())
        batch = labelled()
        expected = parameter_logs(record(model.module, batch, CE))
        assert parameter_logs(record(model, batch, CE)) == expected
    finally:
        torch.distributed.destroy_process_group()
