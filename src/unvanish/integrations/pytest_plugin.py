"""The pytest plugin: a fixture that checks a model, and `--unvanish`, which checks the models of the project.

Notable:
- Every pytest run loads it, so it imports neither torch nor NumPy until a test uses the fixture.
- `--unvanish-fail-on` holds for the whole run; without it, `fail-on` in `[tool.unvanish]` does.
- What the project ignores with a reason does not fail a test. The models of `[tool.unvanish.models]` are
  checked by `unvanish check`, each in a process of its own, so the baseline counts there, too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Diagnosis

LIBRARIES = ("pytest",)
LEVELS = ("note", "warning", "error", "never")


class AssertHealthy(Protocol):
    """The type of the fixture: `unvanish.assert_healthy` with the settings of the project."""

    def __call__(self, model: Any, batch: Any, loss: Any = None, **options: Any) -> Diagnosis: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of unvanish to pytest's."""
    group = parser.getgroup("unvanish")
    group.addoption(
        "--unvanish-fail-on",
        choices=LEVELS,
        default=None,
        help="level from which assert_healthy fails (default: fail-on of [tool.unvanish], else warning)",
    )
    group.addoption(
        "--unvanish", action="store_true", help="check the models of [tool.unvanish.models] as tests, too"
    )


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add a test for each model of the project, if the run asks for them."""
    if not session.config.getoption("--unvanish"):
        return
    from unvanish.clinic import config

    try:
        models = config.load(session.config.rootpath).models
    except config.ConfigError as error:
        raise pytest.UsageError(str(error)) from error
    for name, options in models.items():
        items.append(ModelItem.from_parent(session, name=f"unvanish[{name}]", options=options))


class ModelItem(pytest.Item):
    """A model of the project as a test: `unvanish check` finds nothing that counts."""

    def __init__(self, *, options: Mapping[str, Any], **given: Any) -> None:
        super().__init__(**given)
        self.options = options

    def runtest(self) -> None:
        level = self.config.getoption("--unvanish-fail-on")
        options = {**self.options, **({"fail-on": level} if level else {})}
        call = [sys.executable, "-m", "unvanish", "check", *_list_words(options)]
        done = subprocess.run(
            call, cwd=self.config.rootpath, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise CheckFailed(f"{done.stdout}{done.stderr}".rstrip())

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, CheckFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.config.rootpath / "pyproject.toml", None, self.name


class CheckFailed(Exception):
    """A check that found something or could not run; the text is its report."""


@pytest.fixture
def assert_healthy(request: pytest.FixtureRequest) -> AssertHealthy:
    """`assert_healthy(model, batch, loss)` fails the test with the report if the model has findings."""

    def run(model: Any, batch: Any, loss: Any = None, **options: Any) -> Diagnosis:
        import unvanish
        from unvanish.clinic import config
        from unvanish.clinic.code_lines import locate
        from unvanish.clinic.excuses import excuse

        own = config.load(request.config.rootpath)
        level = options.pop("fail_on", None) or request.config.getoption("--unvanish-fail-on")
        level = level or own.fail_on or "warning"
        if level not in LEVELS:
            raise ValueError(f"fail_on is {level!r}; use one of {', '.join(LEVELS)}")
        chosen = {"select": own.select, "ignore": own.ignore or None, "settings": own.settings or None}
        given = {**{key: value for key, value in chosen.items() if value is not None}, **options}
        diagnosis = excuse(unvanish.check(model, batch, loss, **given), own.excused)
        if level != "never" and diagnosis.counted(level):  # type: ignore[arg-type]
            raise AssertionError(f"\n{locate(diagnosis, model, loss)}")
        return diagnosis

    return run


def _list_words(options: Mapping[str, Any]) -> Iterator[str]:
    """The options of a model as words of the command line; the model comes first."""
    yield str(options["model"])
    for name, value in options.items():
        if name != "model":
            for one in value if isinstance(value, list) else [value]:
                yield from (f"--{name}", str(one))
