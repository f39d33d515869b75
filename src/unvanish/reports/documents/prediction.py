"""One prediction: a line of what `unvanish predict` writes."""

from __future__ import annotations

from typing import Any

from unvanish.core.plain import plain
from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import ANYTHING, NUMBER, STRING, describe_document, list_of

NAME = "unvanish.prediction/1"
SCHEMA = describe_document(
    "A prediction by unvanish",
    NAME,
    {},
    origin=STRING,
    task=STRING,
    text=STRING,
    entries=list_of(ANYTHING),
    milliseconds=NUMBER,
)


def build(prediction: Any) -> dict[str, Any]:
    """Where its input came from; `entries` are boxes or probable classes with `name` and `confidence`."""
    classes = prediction.boxes is not None or prediction.probs is not None
    return {
        **begin(NAME),
        "origin": str(prediction.origin),
        "task": prediction.task,
        "text": prediction.text,
        "entries": plain(prediction.summary()) if classes else [],
        "milliseconds": plain(float(prediction.milliseconds)),
    }
