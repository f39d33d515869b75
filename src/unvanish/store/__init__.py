"""The run folder: one SQLite file, written while a model trains and readable at any time."""

from unvanish.store.joined import find_last_step, find_others, open_run
from unvanish.store.parts import parse_finding
from unvanish.store.reader import Run, RunPair, Standing, StoreError
from unvanish.store.writer import Store

__all__ = [
    "Run",
    "RunPair",
    "Standing",
    "Store",
    "StoreError",
    "find_last_step",
    "find_others",
    "open_run",
    "parse_finding",
]
