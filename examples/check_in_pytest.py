"""A test that fails when a network loses its gradient. Run it with `pytest examples/check_in_pytest.py`.

The fixture `assert_healthy` comes with unvanish's pytest plugin. It reads `[tool.unvanish]` of your
pyproject.toml; the failure shows the whole report.
"""

import pytest
import torch
from torch import nn

BATCH = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10


def network(activation: type[nn.Module], depth: int = 12) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(64, 64)
        if activation is nn.ReLU:
            nn.init.kaiming_normal_(layer.weight)
        layers += [layer, activation()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def test_our_network_trains(assert_healthy):
    assert_healthy(network(nn.ReLU), BATCH, nn.CrossEntropyLoss())


def test_sigmoid_would_not(assert_healthy):
    with pytest.raises(AssertionError, match="ACT002"):
        assert_healthy(network(nn.Sigmoid), BATCH, nn.CrossEntropyLoss())


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q"]))
