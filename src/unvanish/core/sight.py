"""What a watch has seen so far, as it prints and displays itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from unvanish.core.diagnosis import Diagnosis
from unvanish.core.shown import Shown


@dataclass(frozen=True, repr=False)
class Sight(Shown):
    """A watched training up to now; `spans`: by code, the steps at which a finding was first and last seen.

    `overhead`: share of the run's time that the watch took; `failure`: of the watch itself, empty if none.
    """

    diagnosis: Diagnosis
    steps: int
    looks: int
    overhead: float = math.nan
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: str = ""
