"""`watch`: a training under the same eyes, within a budget, its numbers untouched."""

from unvanish.clinic.watch.errors import WatchError
from unvanish.clinic.watch.front import Watch
from unvanish.clinic.watch.history import LIVE
from unvanish.clinic.watch.opening import rehearse, watch

__all__ = ["LIVE", "Watch", "WatchError", "rehearse", "watch"]
