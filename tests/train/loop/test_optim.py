"""Optimizers, their groups, the running mean, frozen layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unvanish.train.arguments import OPTIMIZERS, Arguments
from unvanish.train.errors import TrainError
from unvanish.train.loop import optim
from unvanish.train.loop.ema import Ema
from unvanish.train.loop.freezing import freeze


def test_biases_and_norms_do_not_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm([4, 5]), nn.Embedding(7, 4))
    decaying, biases, rest = optim.group_parameters(model, 0.1)
    assert {p.ndim for p in decaying["params"]} == {4, 2} and decaying["weight_decay"] == 0.1
    assert sum(p.numel() for p in decaying["params"]) == 108 + 28  # the layer norm's matrix is not among them
    assert rest["weight_decay"] == biases["weight_decay"] == 0
    assert biases["params"] == [m.bias for m in model[:3]] and biases["biases"]
    assert rest["params"] == [m.weight for m in model[1:3]] and not rest["biases"]
    assert len(optim.group_parameters(nn.LSTM(2, 3), 0.1)[1]["params"]) == 2


def test_momentum_by_task_and_optimizer():
    assert (
        optim.choose_momentum(Arguments(), "detect")
        == optim.choose_momentum(Arguments(optimizer="sgd"), "classify")
        == 0.9
    )
    for name in ("sgd", "adamw"):
        model = nn.Linear(2, 2)
        made = optim.build_optimizer(model, Arguments(optimizer=name), "segment", 10, 0.001)
        group = made.param_groups[0]
        assert (group["betas"][0] if "betas" in group else group["momentum"]) == 0.937
    assert optim.choose_momentum(Arguments(optimizer="sgd", momentum=0.5), "detect") == 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_each_optimizer_lowers_a_quadratic(name, momentum):
    model = nn.Linear(4, 1)
    made = optim.build_optimizer(
        model, Arguments(optimizer=name, lr0=0.01, momentum=momentum), "classify", 10
    )
    x, losses = torch.randn(16, 4), []
    for _ in range(50):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        losses.append(loss.item())
        made.zero_grad()
        loss.backward()
        made.step()
    assert losses[-1] < losses[0]


def test_auto_chooses_by_task_and_length():
    assert optim.choose(Arguments(), "classify", 100) == ("adamw", 1e-3)
    assert optim.choose(Arguments(), "classify", 20_000) == ("sgd", 0.05)
    assert optim.choose(Arguments(lr0=0.3), "translate", 20_000) == ("adamw", 0.3)


def test_the_running_mean_is_that_of_its_formula():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = Ema(model, 0.9, 5.0)
    mean = {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    for n in range(1, 6):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn_like(tensor))
        ema.update()
        decay = 0.9 * (1 - math.exp(-n / 5))
        mean = {k: decay * v + (1 - decay) * model.state_dict()[k] for k, v in mean.items()}
    assert set(ema.state()) == set(mean)
    for name, tensor in ema.state().items():
        torch.testing.assert_close(tensor, mean[name])


def test_the_mean_is_swapped_in_and_out():
    model = nn.Linear(3, 3)
    ema, before = Ema(model, 0.9, 1.0), model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    moved = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="inside"), ema.within():
        assert torch.equal(model.weight, before)
        raise RuntimeError("inside")
    assert torch.equal(model.weight, moved)


def test_freezing_by_number_and_by_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    assert freeze(model, 1) == ["0"] and not model[0].weight.requires_grad
    assert freeze(model, ["2"]) == ["2"] and model[1].weight.requires_grad
    with pytest.raises(TrainError, match="there are 3 layers"):
        freeze(model, [3])
    with pytest.raises(TrainError, match="there is no layer 'stem'"):
        freeze(model, ["stem"])
    freeze(model, 3)
    with pytest.raises(TrainError, match="every layer is frozen"):
        optim.group_parameters(model, 0.1)


def test_the_decay_follows_the_samples_of_a_step():
    assert optim.scale_decay(Arguments(batch=16, nbs=64)) == Arguments().weight_decay
    assert optim.scale_decay(Arguments(batch=16, nbs=24)) == pytest.approx(Arguments().weight_decay * 32 / 24)


def test_the_rates_of_detectors():
    assert optim.choose(Arguments(), "detect", 100, 0.00125) == ("adamw", 0.00125)
    assert optim.choose(Arguments(), "detect", 10_001, 0.00125) == ("sgd", 0.01)
    assert optim.choose(Arguments(lr0=0.3), "detect", 100, 0.00125) == ("adamw", 0.3)
