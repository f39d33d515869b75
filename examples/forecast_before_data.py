"""Which depth and initialisation will train, before there is data: theory, no forward, no backward."""

from functools import partial

from torch import nn

import unvanish

STARTS = {
    "PyTorch's own": None,
    "Xavier": nn.init.xavier_normal_,
    "He": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
}


def network(depth: int, start) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(256, 256), nn.ReLU()]
        if start is not None:
            start(layers[-2].weight)
            nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers, nn.Linear(256, 10))


def main() -> None:
    print(f"{'ReLU layers':>11}  {'weights':<14}  verdict")
    for depth in (5, 20, 100):
        for name, start in STARTS.items():
            forecast = unvanish.forecast(network(depth, start), (256,))
            worst = forecast.findings[0].cause if forecast.codes() else "the gradient reaches every layer"
            print(f"{depth:>11}  {name:<14}  {', '.join(forecast.codes()) or 'healthy'}: {worst}")


if __name__ == "__main__":
    main()
