"""Networks from YAML that train: `Model("resnet20.yaml").train(data="digits.yaml", epochs=3)`.

Notable:
- Here the lab (`models`, `tasks`) and the clinic (`watch`, `forecast`, `check`) meet.
- Nothing heavy is imported before it is used, so that `unvanish train --help` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unvanish.train.errors import TrainError
    from unvanish.train.loaders import Loaders
    from unvanish.train.model import Model
    from unvanish.train.report.results import Results

__all__ = ["Loaders", "Model", "Results", "TrainError"]

_HOMES = {"Loaders": "loaders", "Model": "model", "Results": "report.results", "TrainError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'unvanish.train' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f"unvanish.train.{_HOMES[name]}"), name)
