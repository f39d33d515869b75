"""The results of a training or a validation from YAML: what `unvanish train` and `unvanish val` end with."""

from __future__ import annotations

from typing import Any

from unvanish.core.plain import plain
from unvanish.reports.diagnosis.json import build_finding
from unvanish.reports.diagnosis.schema import FINDING
from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import (
    COUNT,
    NUMBER,
    STRING,
    describe_document,
    list_of,
    map_of,
    or_null,
    refer,
)  # fmt: skip

NAME = "unvanish.results/1"
SCHEMA = describe_document(
    "A training or a validation by unvanish",
    NAME,
    FINDING,
    task=STRING,
    metrics=map_of(NUMBER),
    fitness=NUMBER,
    loss=NUMBER,
    speed=map_of(NUMBER),
    epochs=COUNT,
    best_epoch=COUNT,
    steps=COUNT,
    skipped=COUNT,
    seconds=NUMBER,
    folder=or_null(STRING),
    best=or_null(STRING),
    last=or_null(STRING),
    verdict=STRING,
    findings=list_of(refer("finding")),
)
NUMBERS = ("metrics", "fitness", "loss", "speed", "epochs", "best_epoch", "steps", "skipped", "seconds")


def build(results: Any) -> dict[str, Any]:
    """The results of `Model.train` or `Model.val`; `best` and `last` are files of weights."""
    places = {"folder": results.save_dir, "best": results.best, "last": results.last}
    return {
        **begin(NAME),
        "task": results.task,
        **{name: plain(getattr(results, name)) for name in NUMBERS},
        **{name: None if place is None else str(place) for name, place in places.items()},
        "verdict": results.verdict,
        "findings": [build_finding(f) for f in results.findings],
    }
