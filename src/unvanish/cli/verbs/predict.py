"""`unvanish predict model=... source=...`: predict files or texts."""

from __future__ import annotations

from unvanish.cli.arguments import ANY_OPTION, Words, load_model, read_arguments, train_errors
from unvanish.cli.errors import stoppable

ORDER = 140
CONTEXT = ANY_OPTION

PAGE = """unvanish predict NAME=VALUE ...

    unvanish predict model=runs/classify/resnet20/weights/best.safetensors source=pictures/
    unvanish predict model=translate/weights/best.safetensors source="Ein Hund rennt." """


@stoppable
def predict(words: Words = None) -> None:
    """Predict files or texts with saved weights. See `unvanish predict --help`."""
    given = read_arguments(words, "predict", PAGE, ("model", "source"))
    if given is None:
        return
    with train_errors():
        source = given.pop("source")
        for prediction in load_model(given, given.pop("model")).predict(source, stream=True, **given):
            print(prediction, flush=True)
