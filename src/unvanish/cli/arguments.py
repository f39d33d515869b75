"""What `train`, `val`, `predict` and `export` share: NAME=VALUE, as YOLO users type it, and its errors.

Notable: `unvanish.train.arguments` lists and checks the arguments; `--help` prints that list.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from unvanish.cli.errors import CallError
from unvanish.cli.pairs import read_pairs

Words = Annotated[
    list[str] | None, typer.Argument(metavar="NAME=VALUE ...", help="As in epochs=3; or --epochs 3.")
]
ANY_OPTION = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
# of a call: kept as they are typed
TEXTS = ("model", "data", "source", "project", "name", "format", "path", "task", "json")
CHANGES = ("activation", "init", "norm", "depth", "width")  # of the network's YAML, for this run


def read_arguments(
    words: list[str] | None, command: str, page: str, needed: tuple[str, ...]
) -> dict[str, Any] | None:
    """The arguments of a call; None if the call asks for help, which is printed."""
    if not words or {"-h", "--help"} & set(words):
        print(page.rstrip() + (list_arguments() if command in ("train", "val") else ""))
        return None
    given = correct_names(read_pairs(words, TEXTS), command, needed)
    missing = [name for name in needed if given.get(name) in (None, "")]
    if missing and not (command == "train" and given.get("resume")):
        raise CallError(f"{missing[0]}= is missing; see unvanish {command} --help")
    return given


def correct_names(given: dict[str, Any], command: str, more: tuple[str, ...]) -> dict[str, Any]:
    """The arguments under their right names; CallError suggests the nearest for a wrong one."""
    from unvanish.train.errors import TrainError
    from unvanish.train.verbs import require_taken

    own = {"model", "data", "format", "path", "allow_code", "json", "resume", *CHANGES, *more}
    try:
        require_taken(command, {key: value for key, value in given.items() if key not in own})
        return {key if key in own else key.replace("-", "_"): value for key, value in given.items()}
    except TrainError as error:
        raise CallError(str(error)) from error


def list_arguments() -> str:
    """Every argument with its default and its meaning, one a line."""
    import dataclasses

    from unvanish.train.arguments import Arguments

    lines = ["", "", "arguments (default):"]
    defaults = Arguments()
    for field in dataclasses.fields(Arguments):
        words: tuple[str, ...] = field.metadata.get("words", ())
        default = getattr(defaults, field.name)
        text = str(default).lower() if isinstance(default, bool) or default is None else default
        choices = f": {', '.join(words)}" if words else ""
        lines.append(f"  {f'{field.name}={text}':<26} {field.metadata['help']}{choices}")
    return "\n".join(lines)


@contextlib.contextmanager
def train_errors() -> Iterator[None]:
    """Turn an error of a call, a YAML, data or a run into a CallError."""
    from unvanish.train import errors

    try:
        errors.require()
    except errors.TrainError as error:
        raise CallError(str(error)) from error
    from unvanish.cli.lab import yaml_errors
    from unvanish.train.loop.interrupt import Interrupted

    try:
        with yaml_errors():
            yield
    except Interrupted as error:
        raise CallError(str(error), code=130) from error
    except errors.Diverged as error:
        raise CallError(str(error), code=1) from error
    except errors.TrainError as error:
        raise CallError(str(error)) from error


def load_model(given: dict[str, Any], name: Any, **changes: Any) -> Any:
    """The network of a YAML or a checkpoint; `changes`: of its YAML; takes `allow_code` from `given`."""
    from unvanish.cli.reference import allow_code
    from unvanish.train.model import Model

    return Model(str(name), allow_code=allow_code(given.pop("allow_code", False)), **changes)
