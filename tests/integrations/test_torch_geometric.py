"""Batches of PyTorch Geometric's real loader, for check, forecast and watch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import unvanish

pytest.importorskip("torch_geometric")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from torch_geometric.data import Data  # noqa: E402 - only where PyG is
from torch_geometric.loader import DataLoader  # noqa: E402
from torch_geometric.nn import GCNConv, global_mean_pool  # noqa: E402


class ByName(nn.Module):
    def __init__(self, depth: int = 2, kind: Any = torch.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.convs = nn.ModuleList([GCNConv(32 if k else 8, 32) for k in range(depth)])
        self.head = nn.Linear(32, 3)

    def forward(self, x: Any, edge_index: Any, batch: Any) -> Any:
        for conv in self.convs:
            x = self.kind(conv(x, edge_index))
        return self.head(global_mean_pool(x, batch))


class Whole(ByName):
    def forward(self, data: Any) -> Any:
        return super().forward(data.x, data.edge_index, data.batch)


@pytest.fixture
def loader() -> Any:
    torch.manual_seed(0)
    graphs = [
        Data(torch.randn(12, 8), torch.randint(0, 12, (2, 30)), y=torch.randint(0, 3, (1,)))
        for _ in range(64)
    ]
    return DataLoader(graphs, 16)


@pytest.mark.parametrize("kind", [ByName, Whole])
def test_batches_and_loaders_are_read(loader, kind) -> None:
    model, batch = kind(), next(iter(loader))
    for given in (batch, loader):
        diagnosis = unvanish.check(model, given, nn.CrossEntropyLoss())
        assert diagnosis.findings == () and "cross_entropy" in str(diagnosis)
    assert unvanish.forecast(model, batch=batch).findings == ()


def test_a_tower_of_sigmoids_is_named(loader) -> None:
    diagnosis = unvanish.check(ByName(10, torch.sigmoid), loader, nn.CrossEntropyLoss())
    assert diagnosis.findings[0].code == "ACT002"


def test_one_large_graph_whose_nodes_are_classified() -> None:
    class Nodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(8, 3)

        def forward(self, x: Any, edge_index: Any) -> Any:
            return self.conv(x, edge_index)

    torch.manual_seed(0)
    graph = Data(torch.randn(50, 8), torch.randint(0, 50, (2, 200)), y=torch.randint(0, 3, (50,)))
    graph.train_mask = torch.rand(50) < 0.5
    assert unvanish.check(Nodes(), graph, nn.CrossEntropyLoss()).findings == ()


def test_losses_are_the_same_under_a_watch(loader) -> None:
    def train(watched: bool) -> list[float]:
        model = ByName()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        watch = unvanish.watch(model, optimizer, on_finding="silent") if watched else None
        losses = []
        for batch in [*loader, *loader]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch.x, batch.edge_index, batch.batch), batch.y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if watch is not None:
            watch.close()
            assert watch.findings == [] and watch.failure == ""
        return losses

    assert train(True) == train(False)
