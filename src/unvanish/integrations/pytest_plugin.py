"""The pytest plugin: a fixture that checks a model under the project's own settings.

Notable:
- It is loaded with every pytest run, so it imports neither torch nor NumPy until the fixture is used.
- `--unvanish-fail-on` decides over the whole run; `fail-on` in `[tool.unvanish]` holds where it is not given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Diagnosis


class AssertHealthy(Protocol):
    """The type of the fixture: `unvanish.assert_healthy` with the project's settings filled in."""

    def __call__(self, model: Any, batch: Any, loss: Any = None, **options: Any) -> Diagnosis: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--unvanish-fail-on` to pytest's options."""
    parser.getgroup("unvanish").addoption(
        "--unvanish-fail-on",
        choices=("note", "warning", "error", "never"),
        default=None,
        help="what fails assert_healthy (default: fail-on of [tool.unvanish], else warning)",
    )


@pytest.fixture
def assert_healthy(request: pytest.FixtureRequest) -> AssertHealthy:
    """`assert_healthy(model, batch, loss)` fails the test with the report if the model has findings."""

    def run(model: Any, batch: Any, loss: Any = None, **options: Any) -> Diagnosis:
        import unvanish
        from unvanish.clinic import config

        own = config.load(request.config.rootpath)
        wanted = request.config.getoption("--unvanish-fail-on")
        level = options.pop("fail_on", None) or wanted or own.fail_on or "warning"
        chosen = {"select": own.select, "ignore": own.ignore or None, "settings": own.settings or None}
        given = {**{key: value for key, value in chosen.items() if value is not None}, **options}
        if level == "never":
            found: Diagnosis = unvanish.check(model, batch, loss, **given)
            return found
        found = unvanish.assert_healthy(model, batch, loss, fail_on=level, **given)
        return found

    return run
