"""unvanish finds where a deep network loses its gradient, names the cause, and says what to do.

Notable:
- The public names are loaded when they are first used: `import unvanish` imports neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unvanish.core.shown import offer
from unvanish.core.version import __version__

if TYPE_CHECKING:
    from unvanish.clinic.check import assert_healthy, check
    from unvanish.clinic.cure import cure
    from unvanish.clinic.forecast import forecast
    from unvanish.clinic.prescription import Prescription, apply
    from unvanish.clinic.watch import watch
    from unvanish.core.cured import Cured, Proof
    from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
    from unvanish.core.trace import Site, Trace
    from unvanish.store import open_run
    from unvanish.train.model import YOLO, Model

__all__ = [
    "YOLO", "Cured", "Diagnosis", "Finding", "Model", "Prescription", "Proof", "Remedy", "Site", "Trace",
    "__version__", "apply", "assert_healthy", "check", "cure", "forecast", "open_run", "watch",
]  # fmt: skip

_HOMES = {
    "apply": "unvanish.clinic.prescription",
    "assert_healthy": "unvanish.clinic.check",
    "check": "unvanish.clinic.check",
    "cure": "unvanish.clinic.cure",
    "forecast": "unvanish.clinic.forecast",
    "Model": "unvanish.train.model",
    "YOLO": "unvanish.train.model",
    "Prescription": "unvanish.clinic.prescription",
    "open_run": "unvanish.store",
    "watch": "unvanish.clinic.watch",
    "Cured": "unvanish.core.cured",
    "Proof": "unvanish.core.cured",
    "Diagnosis": "unvanish.core.diagnosis",
    "Finding": "unvanish.core.diagnosis",
    "Remedy": "unvanish.core.diagnosis",
    "Site": "unvanish.core.trace",
    "Trace": "unvanish.core.trace",
}

offer(lambda: importlib.import_module("unvanish.reports"))  # how nouns print themselves


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unvanish' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
