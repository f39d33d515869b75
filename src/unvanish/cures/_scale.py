"""A centre and a scale in a cure's settings: `mean` and `std`, or one for each feature, `means` and
`stds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from unvanish.surgery.receipt import SurgeryError


def choose_scale(cure: str, mean: Any, std: Any, means: Any, stds: Any) -> tuple[Any, Any]:
    """(centre, scale), numbers or lists; SurgeryError for a scale that is not positive, or two lengths."""
    centre, scale = (mean, std) if means is None or stds is None else (means, stds)
    if not bool((torch.as_tensor(scale) > 0).all()):
        raise SurgeryError(f"{cure}: std is {scale}; it must be positive")
    if torch.as_tensor(centre).shape != torch.as_tensor(scale).shape:
        raise SurgeryError(f"{cure}: means and stds must be as many")
    return centre, scale


def read_scale(parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """The same of a remedy's settings, lists for several features."""
    means, stds = parameters.get("means"), parameters.get("stds")
    if means and stds:
        return [float(v) for v in means], [float(v) for v in stds]
    return parameters.get("mean", 0.0), parameters.get("std", 1.0)
