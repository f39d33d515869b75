"""`unvanish val model=...`: the loss and the metrics of saved weights."""

from __future__ import annotations

from unvanish.cli.arguments import ANY_OPTION, Words, load_model, read_arguments, train_errors
from unvanish.cli.errors import stoppable

ORDER = 130
CONTEXT = ANY_OPTION

PAGE = """unvanish val NAME=VALUE ...

    unvanish val model=runs/classify/resnet20/weights/best.safetensors    (on the data of its training)"""


@stoppable
def val(words: Words = None) -> None:
    """Measure loss and metrics of saved weights. See `unvanish val --help`."""
    given = read_arguments(words, "val", PAGE, ("model",))
    if given is None:
        return
    with train_errors():
        print(load_model(given, given.pop("model")).val(given.pop("data", None), **given))
