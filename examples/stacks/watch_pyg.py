"""PyTorch Geometric: batches of graphs as they are, for `check`, `forecast` and `watch`; no callback."""

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool

import unvanish


class Tower(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(8 if k == 0 else 32, 32) for k in range(depth)])
        self.head = nn.Linear(32, 3)

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = conv(x, edge_index).sigmoid()
        return self.head(global_mean_pool(x, batch))


def main() -> None:
    torch.manual_seed(0)
    graphs = [
        Data(torch.randn(12, 8), torch.randint(0, 12, (2, 30)), y=torch.randint(0, 3, (1,)))
        for _ in range(128)
    ]
    loader, model = DataLoader(graphs, 32), Tower(10)
    print(unvanish.check(model, loader, nn.CrossEntropyLoss()), "\n")

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with unvanish.watch(model, optimizer) as watch:
        for batch in loader:
            optimizer.zero_grad()
            scores = model(batch.x, batch.edge_index, batch.batch)
            nn.functional.cross_entropy(scores, batch.y).backward()
            optimizer.step()
    print(watch)


if __name__ == "__main__":
    main()
