"""unvanish finds where a deep network loses its gradient, names the cause, and says what to do.

Notable:
- The public names are loaded when they are first used: `import unvanish` imports neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unvanish.cures import Prescription, apply
    from unvanish.doctor import assert_healthy, check
    from unvanish.prediction import forecast
    from unvanish.store import open_run
    from unvanish.train.model import YOLO, Model
    from unvanish.treatment import cure
    from unvanish.types import Cured, Diagnosis, Finding, Proof, Remedy, Site, Trace
    from unvanish.watcher import watch

__version__ = "0.1.0"

__all__ = [
    "YOLO", "Cured", "Diagnosis", "Finding", "Model", "Prescription", "Proof", "Remedy", "Site", "Trace",
    "__version__", "apply", "assert_healthy", "check", "cure", "forecast", "open_run", "watch",
]  # fmt: skip

_HOMES = {
    "apply": "unvanish.cures",
    "assert_healthy": "unvanish.doctor",
    "check": "unvanish.doctor",
    "cure": "unvanish.treatment",
    "forecast": "unvanish.prediction",
    "Model": "unvanish.train.model",
    "YOLO": "unvanish.train.model",
    "Prescription": "unvanish.cures",
    "open_run": "unvanish.store",
    "watch": "unvanish.watcher",
    "Cured": "unvanish.types",
    "Proof": "unvanish.types",
    "Diagnosis": "unvanish.types",
    "Finding": "unvanish.types",
    "Remedy": "unvanish.types",
    "Site": "unvanish.types",
    "Trace": "unvanish.types",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unvanish' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
