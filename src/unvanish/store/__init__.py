"""The run folder: one SQLite file, written while a model trains and readable at any time."""

from unvanish.store.joined import find_last_step, open_run
from unvanish.store.reader import Run, StoreError, parse_finding
from unvanish.store.writer import Store

__all__ = ["Run", "Store", "StoreError", "find_last_step", "open_run", "parse_finding"]
