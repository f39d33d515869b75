"""A rate beyond the critical one is lowered, and proven by the user's own optimizer."""

from __future__ import annotations

import torch
from torch import nn

from unvanish.clinic.cure import cure
from unvanish.clinic.prescription import apply
from unvanish.reports.cure.headline import write_headline

CE = nn.CrossEntropyLoss()


def make() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight)
    y = torch.randint(0, 4, (64,))
    return net, (2 * torch.randn(4, 12)[y] + 0.5 * torch.randn(64, 12), y)


def test_a_rate_that_diverges_is_lowered_and_proven() -> None:
    net, batch = make()
    optimizer = torch.optim.SGD(net.parameters(), 30.0, momentum=0.9)
    found = cure(net, batch, CE, optimizer=optimizer, budget=600)
    assert [r.cure for r in found.prescription.remedies] == ["lower-learning-rate"]
    assert found.success and found.proof is not None and found.proof.training == "better"
    assert write_headline(found).word == "cured"
    assert optimizer.param_groups[0]["lr"] == 30.0
    apply(net, found.prescription, optimizer=optimizer, batch=batch, loss=CE)
    for _ in range(30):
        optimizer.zero_grad()
        loss = CE(net(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5


def test_a_rate_that_trains_is_left_alone() -> None:
    net, batch = make()
    found = cure(net, batch, CE, optimizer=torch.optim.Adam(net.parameters(), 1e-3))
    assert not found.prescription and write_headline(found).word == "healthy"
