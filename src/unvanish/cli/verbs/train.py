"""`unvanish train model=... data=...`: train a network from YAML, watched."""

from __future__ import annotations

from typing import Any

from unvanish.cli.arguments import ANY_OPTION, CHANGES, Words, load_model, read_arguments, train_errors
from unvanish.cli.errors import stoppable
from unvanish.cli.outcome import free_stdout, is_alone, write_json

ORDER = 120
CONTEXT = ANY_OPTION

PAGE = """unvanish train NAME=VALUE ...    (or --name value)

    unvanish train model=resnet20.yaml data=digits.yaml epochs=3
    unvanish train model=mine.yaml data=mine_data.yaml epochs=50 lr0=0.1 optimizer=sgd cos_lr=true
    unvanish train model=relu-cnn.yaml data=cifar10.yaml activation=gelu init=xavier norm=batch
    unvanish train resume=runs/classify/resnet20
    torchrun --nproc-per-node 2 -m unvanish train model=resnet110.yaml data=cifar10.yaml epochs=200

    json=FILE.json writes the results as JSON; json=- prints them alone, and the progress to stderr.
    allow_code=true lets a YAML or weights import the layers that they name by a Python path."""


@stoppable
def train(words: Words = None) -> None:
    """Train a network from YAML, watched. See `unvanish train --help`."""
    given = read_arguments(words, "train", PAGE, ("data",))
    if given is None:
        return
    with train_errors():
        alone = is_alone(json := given.pop("json", None))
        with free_stdout(alone):
            found = _train(given)
    if json:
        from unvanish.reports.documents import results

        write_json(results.build(found), json)


def _train(given: dict[str, Any]) -> Any:
    """The results of the training that these arguments describe."""
    name = given.pop("model", None) or _find_resumed(given)
    changes = {key: given.pop(key) for key in CHANGES if key in given}
    return load_model(given, name, **changes).train(given.pop("data", None), **given)


def _find_resumed(given: dict[str, Any]) -> str:
    """The checkpoint of the run that `resume` names; it holds its own specification."""
    from unvanish.train.checkpoint import folder
    from unvanish.train.errors import TrainError

    if not given.get("resume"):
        raise TrainError("model= is missing; `unvanish zoo` lists the names, and your own YAML works too")
    place = given["resume"]
    path = folder.find_latest(given.get("project")) if place is True else folder.find_state(str(place))
    return str(path.with_name("last.safetensors"))
