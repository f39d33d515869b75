"""The pytest plugin: a fixture that checks a model with the settings of the project.

Notable:
- Every pytest run loads it, so it imports neither torch nor NumPy until a test uses the fixture.
- `--unvanish-fail-on` holds for the whole run; without it, `fail-on` in `[tool.unvanish]` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from unvanish.core.diagnosis import Diagnosis

LIBRARIES = ("pytest",)


class AssertHealthy(Protocol):
    """The type of the fixture: `unvanish.assert_healthy` with the settings of the project."""

    def __call__(self, model: Any, batch: Any, loss: Any = None, **options: Any) -> Diagnosis: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--unvanish-fail-on` to pytest's options."""
    parser.getgroup("unvanish").addoption(
        "--unvanish-fail-on",
        choices=("note", "warning", "error", "never"),
        default=None,
        help="level from which assert_healthy fails (default: fail-on of [tool.unvanish], else warning)",
    )


@pytest.fixture
def assert_healthy(request: pytest.FixtureRequest) -> AssertHealthy:
    """`assert_healthy(model, batch, loss)` fails the test with the report if the model has findings."""

    def run(model: Any, batch: Any, loss: Any = None, **options: Any) -> Diagnosis:
        import unvanish
        from unvanish.clinic import config

        own = config.load(request.config.rootpath)
        level = options.pop("fail_on", None) or request.config.getoption("--unvanish-fail-on")
        level = level or own.fail_on or "warning"
        chosen = {"select": own.select, "ignore": own.ignore or None, "settings": own.settings or None}
        given = {**{key: value for key, value in chosen.items() if value is not None}, **options}
        if level == "never":
            return unvanish.check(model, batch, loss, **given)
        return unvanish.assert_healthy(model, batch, loss, fail_on=level, **given)

    return run
