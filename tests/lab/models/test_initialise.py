"""Where a network begins: what follows each layer, and that signal and gradient keep their size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unvanish.lab.models import build, read
from unvanish.lab.models.flow import Flow, PlacedLayer
from unvanish.lab.models.initialise import Begin, critical_gain, draw, he_gain, initialise, method
from unvanish.theory.initialisers import start


class Mixed(nn.Module):
    """Modules, functions, a shape change, a sum and a shared weight in one forward."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.c = nn.BatchNorm2d(8), nn.Linear(8, 8)
        self.weight = nn.Parameter(torch.randn(5, 8))

    def forward(self, x):
        x = torch.tanh(self.a(x))
        x = x + F.gelu(self.norm(self.b(x)))
        x = self.c(x.mean((2, 3))).relu()
        return F.linear(x, self.weight)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flow_sees_what_stands_before_and_after_every_layer(device):
    net = Mixed().to(device)
    flow = Flow(net)
    with torch.no_grad(), flow:
        net(torch.empty(2, 3, 8, 8, device=device))
    assert flow.layers == {
        "a.weight": PlacedLayer("a.weight", "a.bias", "data", "tanh", False, 1),
        "b.weight": PlacedLayer("b.weight", "", "tanh", "gelu", True, 2),
        "c.weight": PlacedLayer("c.weight", "c.bias", "sum", "relu", False, 3),
        "weight": PlacedLayer("weight", "", "relu", "", False, 4),
    }


def mlp(name, depth, width=256):
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), getattr(nn, name)())]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def begun(net, shape, how, activation):
    flow = Flow(net)
    with torch.no_grad(), flow:
        net(torch.zeros(2, *shape))
    initialise(net, flow.layers, Begin(how, activation))
    return net


def drift(net):
    """ln of how much the gradient changes between the first and the last hidden layer's output."""
    x, hidden = torch.randn(64, 256), []
    for module in net:
        x = module(x)
        if isinstance(module, nn.Linear):
            hidden.append(x)
    first, last = torch.autograd.grad((x * torch.randn_like(x)).sum(), (hidden[0], hidden[-2]))
    return float((first.norm() / last.norm()).log())


@pytest.mark.parametrize("name", ["ReLU", "Tanh", "GELU", "SiLU", "LeakyReLU", "ELU", "SELU", "Sigmoid"])
def test_critical_keeps_the_gradient_over_forty_layers(name):
    torch.manual_seed(0)
    net = mlp(name, 40)
    plain = drift(net)
    ours = drift(begun(net, (256,), "critical", name.lower()))
    assert abs(ours) < 2.0  # e^2 over forty layers
    assert name == "SELU" or plain < -10


def test_a_critical_sigmoid_net_is_a_critical_tanh_net():
    """The same numbers in other words: forty layers of sigmoids equal those of tanh."""
    tanh, sigmoid = mlp("Tanh", 3, 64), mlp("Sigmoid", 3, 64)
    for net, name in ((tanh, "tanh"), (sigmoid, "sigmoid")):
        torch.manual_seed(5)
        begun(net, (64,), "critical", name)
    x = torch.randn(7, 64)
    torch.testing.assert_close(2 * sigmoid[:2](x) - 1, tanh[:2](x))
    torch.testing.assert_close(2 * sigmoid[:6](x) - 1, tanh[:6](x))
    torch.testing.assert_close(sigmoid(x), tanh(x))


@pytest.mark.parametrize(("name", "gain"), [("relu", math.sqrt(2)), ("tanh", 5 / 3), ("gelu", math.sqrt(2))])
def test_he_has_the_gain_of_the_field(name, gain):
    assert he_gain(name) == pytest.approx(gain)
    assert he_gain("") == 1.0


@pytest.mark.parametrize("how", ["he", "xavier", "critical"])
@pytest.mark.parametrize("shape", [(300, 200), (64, 32, 3, 3)])
def test_the_variance_is_the_published_one(how, shape):
    torch.manual_seed(0)
    weight, bias = torch.empty(shape), torch.ones(shape[0])
    draw(weight, bias, PlacedLayer("w", "b", "relu", "relu"), how, 1)
    fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
    wanted = {"he": 2 / fan_in, "critical": 2 / fan_in, "xavier": 2 / (fan_in + fan_out)}[how]
    assert float(weight.var()) == pytest.approx(wanted, rel=0.05)
    assert not bias.any()


def test_a_transposed_convolution_has_its_fan_in():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(64, 32, 3)
    net = begun(nn.Sequential(layer, nn.ReLU()), (64, 4, 4), "he", "relu")
    assert float(net[0].weight.detach().var()) == pytest.approx(2 / (64 * 9), rel=0.05)


def test_between_the_same_activations_the_gain_is_the_critical_one():
    for name in ("relu", "tanh", "gelu"):
        point = start(name, 10)
        gain, bias = critical_gain(PlacedLayer("", "", name, name), 10)
        assert (gain, bias) == pytest.approx((point.sw, point.sb))


def test_the_first_layer_makes_the_length_that_the_activation_holds():
    torch.manual_seed(0)
    net = begun(mlp("Tanh", 4), (256,), "critical", "tanh")
    with torch.no_grad():
        q = net[:1](torch.randn(500, 256)).var()
        deep = net[:7](torch.randn(500, 256)).var()
        assert float(q) == pytest.approx(start("tanh", 5).q, rel=0.1)
    assert float(deep) == pytest.approx(start("tanh", 5).q, rel=0.25)


def test_deep_tanh_convolutions_are_isometries():
    net = build(read("vanilla", depth=60), size=16)
    weight = net.trunk[7].conv.weight
    middle = weight[:, :, 1, 1]
    assert torch.count_nonzero(weight) == torch.count_nonzero(middle)
    gram = middle @ middle.T
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-5, rtol=1e-5)


def test_every_repeat_is_drawn_also_those_the_pass_did_not_run():
    torch.manual_seed(0)
    net = build("relu-cnn", size=16)
    skipped = build(read("vanilla", depth=30, activation="relu"), size=16)
    for block in [*net.stage2, *skipped.trunk]:
        fan_in = block.conv.weight[0].numel()
        assert float(block.conv.weight.detach().var()) * fan_in == pytest.approx(2, rel=0.15)
        assert not block.conv.bias.any()


def test_zero_branches_only_where_depth_asks():
    shallow, deep = build("resnet20", size=8), build("resnet56", size=8)
    assert all((block.branch[-1].norm.weight == 1).all() for block in shallow.stage2)
    assert all((block.branch[-1].norm.weight == 0).all() for block in list(deep.stage2)[1:])
    assert (deep.stage2[0].branch[-1].norm.weight == 1).all()  # its new channels are zero on the other path
    he = build(read("resnet56", init="he"), size=8)
    assert all((block.branch[-1].norm.weight == 1).all() for block in he.stage2)


def test_torch_leaves_everything_as_it_was():
    torch.manual_seed(0)
    net = build(read("relu-cnn", init="torch"), size=8)
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 32, 3, 1, 1)
    assert torch.equal(net.stem.conv.weight, conv.weight)


def test_a_block_has_the_last_word():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x)

        def initialise(self, begin):
            self.told = begin
            nn.init.eye_(self.layer.weight)

    net = begun(nn.Sequential(Own()), (4,), "he", "relu")
    assert torch.equal(net[0].layer.weight, torch.eye(4))
    assert net[0].told.method == "he"


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"no init 'xaviar' \(did you mean 'xavier'\?\)"):
        method("xaviar")
