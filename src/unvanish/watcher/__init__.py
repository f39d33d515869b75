"""`watch`: a training under the same eyes, within a budget, its numbers untouched."""

from unvanish.watcher.history import LIVE
from unvanish.watcher.observer import Watch, WatchError
from unvanish.watcher.opening import rehearse, watch

__all__ = ["LIVE", "Watch", "WatchError", "rehearse", "watch"]
