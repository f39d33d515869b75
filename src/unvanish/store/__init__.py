"""The run folder: one SQLite file, written while a model trains and readable at any time."""

from unvanish.store.reader import Run, Standing, StoreError, open_run
from unvanish.store.writer import Store

__all__ = ["Run", "Standing", "Store", "StoreError", "open_run"]
