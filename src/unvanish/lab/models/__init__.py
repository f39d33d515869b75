"""Networks from YAML whose gradient survives: `read` a spec, `build` the network, list the `zoo`.

Notable: names of this package are loaded on first use; reading a YAML does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unvanish.lab.models.assembly import build
    from unvanish.lab.models.names import catalogue, zoo
    from unvanish.lab.models.network import Network
    from unvanish.lab.models.overview import summary
    from unvanish.lab.models.spec import Spec, read
    from unvanish.lab.models.yaml_data import SpecError

__all__ = ["Network", "Spec", "SpecError", "build", "catalogue", "read", "summary", "zoo"]

_HOMES = {
    "Network": "network", "Spec": "spec", "SpecError": "yaml_data", "build": "assembly", "catalogue": "names",
    "read": "spec", "summary": "overview", "zoo": "names",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'unvanish.lab.models' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    value = getattr(importlib.import_module(f"unvanish.lab.models.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
