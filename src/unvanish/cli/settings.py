"""The settings of a call: those of the project, replaced by the options that are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unvanish.cli.errors import CallError

if TYPE_CHECKING:
    from unvanish.clinic.config import Config


def read_settings(select: str | None, ignore: Sequence[str] | None, fail_on: str | None) -> Config:
    """The settings; CallError for an unknown level or code, in the call or in pyproject.toml."""
    from unvanish.clinic import config
    from unvanish.core.registry import suggest
    from unvanish.rules import rules

    if fail_on is not None and fail_on not in config.FAIL_ON:
        levels = ", ".join(config.FAIL_ON)
        near = suggest(fail_on, config.FAIL_ON)
        raise CallError(f"--fail-on {fail_on!r} is not a level{near}; the levels are {levels}")
    try:
        own = config.load()
        if select is not None:
            config.select_codes(rules(), config.split(select))
            own = dataclasses.replace(own, select=config.split(select))
        own = _ignore(own, ignore or ())
    except config.ConfigError as error:
        dashes = "--" if str(error).startswith(("select:", "ignore:")) else ""
        raise CallError(f"{dashes}{error}") from error
    return dataclasses.replace(own, fail_on=fail_on or own.fail_on)


def _ignore(own: Config, texts: Sequence[str]) -> Config:
    """The settings with `--ignore`: its codes replace those of the project, its excuses are added to them."""
    from unvanish.clinic import config
    from unvanish.rules import rules

    excused, codes = list(own.excused), list[str]()
    for text in texts:
        if "@" not in text and "=" not in text:
            codes += config.split(text)
            continue
        where, _, reason = text.partition("=")
        code, _, path = where.partition("@")
        if not reason.strip():
            raise config.ConfigError(f"ignore: {text} has no reason; write {where}=WHY")
        ignored = config.read_ignore(code, path or "*", reason, "ignore")
        excused.append(dataclasses.replace(ignored, asked=True))
    config.select_codes(rules(), None, codes)
    return dataclasses.replace(own, ignore=tuple(codes) if codes else own.ignore, excused=tuple(excused))
