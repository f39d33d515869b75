"""What Lightning asks for by itself: with UNVANISH=1 in the environment every Trainer is watched.

Notable: every Trainer of whoever has unvanish installed comes here, so nothing is imported unasked.
"""

from __future__ import annotations

import os
from typing import Any

VARIABLE = "UNVANISH"


def make_callbacks() -> list[Any]:
    """The callbacks that a Trainer gets beside its own: a watch if the variable is set, else none."""
    if os.environ.get(VARIABLE, "") in ("", "0"):
        return []
    from unvanish.integrations.lightning import LightningWatch

    return [LightningWatch()]
