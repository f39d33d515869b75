"""The share that dropout layers drop, set for a whole network."""

from __future__ import annotations

from torch import nn

from unvanish.train.errors import TrainError

LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def set_dropout(network: nn.Module, share: float | None) -> int:
    """Set the share of every dropout layer; returns how many there are. TrainError if there is none.

    None leaves all as they are.
    """
    if share is None:
        return 0
    count = 0
    for module in network.modules():
        if isinstance(module, LAYERS):
            module.p, count = share, count + 1
        elif isinstance(getattr(module, "dropout", None), float) and getattr(module, "num_layers", 2) > 1:
            module.dropout, count = share, count + 1  # type: ignore[assignment]
    if not count and share:
        raise TrainError(
            f"dropout={share:g}: the network has no dropout layer; put one into its YAML, as in"
            " {module: Dropout, p: 0.2}, or leave it out"
        )
    return count
