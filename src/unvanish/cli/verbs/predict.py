"""`unvanish predict model=... source=...`: predict files or texts."""

from __future__ import annotations

from typing import Any

from unvanish.cli.arguments import ANY_OPTION, Words, load_model, read_arguments, train_errors
from unvanish.cli.errors import CallError, stoppable
from unvanish.cli.outcome import free_stdout

ORDER = 140
CONTEXT = ANY_OPTION

PAGE = """unvanish predict NAME=VALUE ...

    unvanish predict model=runs/classify/resnet20/weights/best.safetensors source=pictures/
    unvanish predict model=translate/weights/best.safetensors source="Ein Hund rennt."

    json=- prints a JSON object a line for each prediction, and nothing else."""


@stoppable
def predict(words: Words = None) -> None:
    """Predict files or texts with saved weights. See `unvanish predict --help`."""
    given = read_arguments(words, "predict", PAGE, ("model", "source"))
    if given is None:
        return
    with train_errors():
        source, json = given.pop("source"), given.pop("json", None)
        if json not in (None, "-"):
            raise CallError("json= of predict is -, a line for each prediction on stdout")
        with free_stdout(json == "-"):
            found = iter(load_model(given, given.pop("model")).predict(source, stream=True, **given))
        while True:
            with free_stdout(json == "-"):
                prediction = next(found, None)
            if prediction is None:
                break
            print(_write_line(prediction) if json else prediction, flush=True)


def _write_line(prediction: Any) -> str:
    from unvanish.reports.documents import prediction as document
    from unvanish.reports.documents import write_document

    return write_document(document.build(prediction), indent=None).rstrip()
