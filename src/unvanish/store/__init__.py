"""The run folder: one SQLite file that is appended while a model trains, and read while it grows."""

from unvanish.store.reader import Run, StoreError, open_run
from unvanish.store.writer import Store

__all__ = ["Run", "Store", "StoreError", "open_run"]
