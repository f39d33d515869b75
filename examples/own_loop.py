"""Your own training loop, watched: the loop stays as it is, and a fault is reported when it begins.

After 200 steps the learning rate is set fifty times too high, as a wrong schedule would.
"""

import torch
from torch import nn

import unvanish

STEPS, BAD = 400, 200


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = nn.MSELoss()
    x = torch.randn(2048, 20)
    y = torch.sin(x[:, :1] * 2) + x[:, 1:2] * x[:, 2:3]

    print(unvanish.check(model, (x[:64], y[:64]), loss_function), "\n")  # before it begins

    with unvanish.watch(model, optimizer, loss_function, every=5) as watch:
        for step in range(STEPS):
            if step == BAD:
                optimizer.param_groups[0]["lr"] = 0.05
            chosen = torch.randint(0, len(x), (64,))
            loss = loss_function(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    for finding in watch.findings:
        print(f"{finding.code} {finding.name}: {finding.cause}")


if __name__ == "__main__":
    main()
