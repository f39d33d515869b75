"""`unvanish val model=...`: the loss and the metrics of saved weights."""

from __future__ import annotations

from unvanish.cli.arguments import ANY_OPTION, Words, load_model, read_arguments, train_errors
from unvanish.cli.errors import stoppable
from unvanish.cli.outcome import free_stdout, is_alone, write_json

ORDER = 130
CONTEXT = ANY_OPTION

PAGE = """unvanish val NAME=VALUE ...

    unvanish val model=runs/classify/resnet20/weights/best.safetensors    (on the data of its training)

    json=FILE.json writes the results as JSON; json=- prints them alone."""


@stoppable
def val(words: Words = None) -> None:
    """Measure loss and metrics of saved weights. See `unvanish val --help`."""
    given = read_arguments(words, "val", PAGE, ("model",))
    if given is None:
        return
    with train_errors():
        alone = is_alone(json := given.pop("json", None))
        with free_stdout(alone):
            found = load_model(given, given.pop("model")).val(given.pop("data", None), **given)
        if not alone:
            print(found)
    if json:
        from unvanish.reports.documents import results

        write_json(results.build(found), json)
