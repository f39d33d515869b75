"""A training step in place of a loss: the caller's, or the model's own `training_step`."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import unvanish
from unvanish.probes import CheckError, ModelCrash

x, y = torch.randn(24, 6), torch.randint(0, 3, (24,))


def _net(*, activation: type[nn.Module] = nn.Tanh, depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(6, 16), activation()]
    for _ in range(depth):
        layers += [nn.Linear(16, 16), activation()]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def classify(model: Any, batch: Any) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def test_a_step_is_measured_as_forward_and_loss_are() -> None:
    model = _net()
    plain = unvanish.check(model, (x, y), F.cross_entropy, theory=False)
    found = unvanish.check(model, (x, y), step=classify, theory=False)
    assert found.trace.facts["loss"] == plain.trace.facts["loss"]
    assert found.codes() == plain.codes() and not found.unmeasured
    shared = [s.label for s in plain.trace.sites]
    assert [s.label for s in found.trace.sites] == shared
    same = [i for i, s in enumerate(plain.trace.sites) if s.role in ("node", "parameter", "input")]
    for name in ("gradient_log", "backward_log", "forward_rms"):
        a, b = ([t.value(i, name) for i in same] for t in (plain.trace, found.trace))
        assert a == pytest.approx(b, nan_ok=True)


@pytest.mark.parametrize("fault", ["sigmoids", "small", "detached"])
def test_faults_are_found_through_a_step(fault: str) -> None:
    model = _net(activation=nn.Sigmoid, depth=12) if fault == "sigmoids" else _net(depth=12)
    if fault == "small":
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.1)

    def step(model: Any, batch: Any) -> Tensor:
        output = model(batch[0])
        return F.cross_entropy(output.detach() if fault == "detached" else output, batch[1])

    codes = unvanish.check(model, (x, y), step=step).codes()
    wanted = {"sigmoids": "ACT002", "small": "INI001", "detached": "GRF001"}[fault]
    assert wanted in codes


def test_what_the_loss_reads_is_told_from_the_model() -> None:
    def step(model: Any, batch: Any) -> Tensor:
        return F.cross_entropy(torch.softmax(model(batch["x"]), -1), batch["y"])

    def flipped(model: Any, batch: Any) -> Tensor:
        return F.mse_loss(model(batch["x"])[:, :1], batch["y"].float())

    assert "OUT002" in unvanish.check(_net(), {"x": x, "y": y}, step=step).codes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "OUT004" in unvanish.check(_net(), {"x": x, "y": y}, step=flipped).codes()


def test_a_step_may_call_the_model_twice_and_its_parts() -> None:
    def views(model: Any, batch: Tensor) -> Tensor:
        a, b = model(batch), model(batch + 0.1 * torch.randn_like(batch))
        return (1 - F.cosine_similarity(a, b)).mean() + a.std(0).sub(1).square().mean()

    def parts(model: Any, batch: Tensor) -> Tensor:
        h = batch
        for layer in model:
            h = layer(h)
        return h.square().mean()

    for step in (views, parts):
        found = unvanish.check(_net(), x, step=step, confirm=False)
        assert not found.unmeasured and found.trace.depth() is not None
        assert all(s.facts["reachable"] for s in found.trace.sites if s.role == "parameter")


def test_any_batch_reaches_a_step_as_it_is() -> None:
    def step(model: Any, given: Any) -> Tensor:
        assert given is batch
        return classify(model, (torch.as_tensor(given["x"]), y))

    batch = {"x": x.numpy(), "more": [object(), "text"]}
    unvanish.check(_net(), batch, step=step)
    assert "the first batch" in str(unvanish.check(_net(), iter([batch]), step=step))


def test_the_batch_is_left_as_it_was() -> None:
    def step(model: Any, batch: Any) -> Tensor:
        batch["x"].mul_(2)
        batch["x"] = batch["x"] - 1
        batch["new"] = 1
        return classify(model, (batch["x"], y))

    batch = {"x": x.clone()}
    held = batch["x"]
    unvanish.check(_net(), batch, step=step)
    assert list(batch) == ["x"] and batch["x"] is held and torch.equal(held, x)


def test_cure_trains_by_the_step() -> None:
    torch.manual_seed(1)
    data = torch.randn(96, 6)
    labels = (data @ torch.randn(6, 3)).argmax(1)
    model = _net(activation=nn.Sigmoid, depth=10)
    cured = unvanish.cure(model, (data, labels), step=classify, budget=20, steps=30)
    assert cured.proof is not None and cured.proof.losses_after
    assert cured.loss is classify and not cured.after.codes()


class Lit(nn.Module):
    """As a Lightning module, without a trainer."""

    def __init__(self, *, raising: bool = False, gives: str = "tensor") -> None:
        super().__init__()
        self.net, self.raising, self.gives = _net(), raising, gives

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def log(self, name: str, value: Any, **_: Any) -> None:
        if self.raising:
            raise RuntimeError("not attached to a trainer")
        warnings.warn("you are trying to log outside of a trainer", stacklevel=2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels)
        self.log("loss", loss)
        return {"tensor": loss, "dict": {"loss": loss, "other": 1}, "none": None, "number": 1.0}[self.gives]


class Brief(Lit):
    """Without a forward, and with a step of one argument."""

    forward = nn.Module.forward

    def training_step(self, batch: Any) -> Any:
        return super().training_step(batch, 0)


@pytest.mark.parametrize("make", [Lit, Brief])
@pytest.mark.parametrize("raising", [True, False])
@pytest.mark.parametrize("gives", ["tensor", "dict"])
def test_a_training_step_of_the_models_own_is_run(make: type[Lit], raising: bool, gives: str) -> None:
    model = make(raising=raising, gives=gives)
    found = unvanish.check(model, (x, y))
    assert found.trace.facts["loss"] == pytest.approx(float(F.cross_entropy(model.net(x), y).detach()))
    assert "the model's own training_step" in str(found) and not found.unmeasured
    assert "log" not in vars(model)
    assert unvanish.check(model, [(x, y)] and iter([(x, y)])).trace.facts["loss"]


def test_a_training_step_that_nobody_wrote_is_none() -> None:
    class Base(nn.Sequential):
        def training_step(self, *args: Any) -> None: ...

    Base.training_step.__module__ = "lightning.pytorch.core.module"
    found = unvanish.check(Base(nn.Linear(6, 3)), (x, y), F.cross_entropy)
    assert "training_step" not in str(found)
    assert unvanish.check(Base(nn.Linear(6, 3)), x).trace.facts["objective"] == "random cotangent"


def test_a_given_loss_goes_before_a_training_step() -> None:
    found = unvanish.check(Lit(), (x, y), lambda out, y: out.square().mean())
    assert "training_step" not in str(found)
    assert unvanish.forecast(Lit(), batch=x).trace.facts["predicted"]


@pytest.mark.parametrize(
    ("options", "model", "said"),
    [
        ({"step": classify, "loss": F.cross_entropy}, _net(), "either loss or step"),
        ({"step": 3}, _net(), "cannot be called"),
        ({"step": lambda m, b: None}, _net(), "step returned None"),
        ({"step": lambda m, b: {"value": m(b[0]).sum()}}, _net(), "with 'loss'"),
        ({"step": lambda m, b: m(b[0])}, _net(), "not a scalar"),
        ({}, Lit(gives="none"), "training_step returned None"),
        ({}, Lit(gives="number"), "training_step returned a float"),
    ],
)
def test_wrong_steps_say_what_is_wrong(options: dict[str, Any], model: nn.Module, said: str) -> None:
    with pytest.raises(CheckError, match=said):
        unvanish.check(model, (x, y), **options)


def test_a_step_that_optimises_by_itself_is_refused() -> None:
    model = Lit()
    model.automatic_optimization = False
    with pytest.raises(CheckError, match="optimises by itself"):
        unvanish.check(model, (x, y))


@pytest.mark.parametrize("held", [False, True])
def test_a_step_with_its_own_backward_is_refused(held: bool) -> None:
    def whole(model: Any, batch: Any) -> Tensor:
        loss = classify(model, batch)
        loss.backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
        return loss.detach()

    model = _net()
    if held:
        classify(model, (x, y)).backward()
    weight = model[0].weight.detach().clone()
    with pytest.raises(CheckError, match="a backward of its own; return the loss before it"):
        unvanish.check(model, (x, y), step=whole)
    assert torch.equal(model[0].weight, weight) and (model[0].weight.grad is not None) == held


@pytest.mark.parametrize("given", ["checkpoint", "half", "autocast", "nothing"])
def test_unusual_models_are_measured_through_a_step(given: str) -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _net()

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.net, x, use_reentrant=True)

    def step(model: Any, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=given == "autocast"):
            scores = model(x.half() if given == "half" else x)
        return F.cross_entropy(scores.float(), y)

    model = {"checkpoint": Blocks, "half": lambda: _net().half()}.get(given, _net)()
    found = unvanish.check(model, None if given == "nothing" else (x, y), step=step)
    assert not found.unmeasured and not found.codes()


def test_a_step_that_raises_is_a_crash_with_its_cause() -> None:
    with pytest.raises(ModelCrash, match="KeyError") as caught:
        unvanish.check(_net(), {"x": x}, step=lambda m, b: m(b["image"]).sum())
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ModelCrash, match="in loss"):
        unvanish.check(_net(), (x, y[:3]), step=classify)
