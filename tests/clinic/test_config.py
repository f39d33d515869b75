"""Settings are read where they stand, and every mistake names its file, its key and the right one."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from unvanish.clinic import config
from unvanish.clinic.config import Config, ConfigError
from unvanish.clinic.excuses import Ignore
from unvanish.rules import Rule

CODES = ("ACT001", "ACT002", "INI001")


def _check(trace, *, limit=0.5, units=3, exact=True, source="bias", anything=None, levels=(1, 2)):
    return []


@pytest.fixture(autouse=True)
def known(monkeypatch):
    module = types.ModuleType("rule")
    module.check = _check
    table = {code: Rule(code, "some-fault", module) for code in CODES}
    monkeypatch.setattr(config, "rules", lambda: table)
    return table


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text)
    return path


def test_everything_is_read(tmp_path):
    path = write(
        tmp_path,
        """
        [tool.unvanish]
        select = ["ACT", "INI001"]
        ignore = ["ACT002"]
        fail-on = "error"
        [tool.unvanish.rules.ACT001]
        limit = 1
        units = 7
        levels = [3]
        """,
    )
    assert config.load(tmp_path) == Config(
        select=("ACT", "INI001"),
        ignore=("ACT002",),
        fail_on="error",
        settings={"ACT001": {"limit": 1, "units": 7, "levels": [3]}},
        path=path,
    )


def test_what_does_not_count_and_what_is_checked_are_read(tmp_path):
    write(
        tmp_path,
        """
        [tool.unvanish]
        ignore = ["INI", {code = "act001", path = "body.*", reason = "studied"}, {code = "ACT", reason = "x"}]
        baseline = "old.json"
        [tool.unvanish.models.net]
        model = "net.py:build"
        input = ["3,8,8", "4"]
        """,
    )
    read = config.load(tmp_path)
    assert read.ignore == ("INI",)
    assert read.excused == (Ignore("ACT001", "body.*", "studied"), Ignore("ACT", "*", "x"))
    assert read.baseline == tmp_path / "old.json"
    assert read.models == {"net": {"model": "net.py:build", "input": ["3,8,8", "4"]}}


def test_the_nearest_file_upwards_counts(tmp_path):
    write(tmp_path, '[tool.unvanish]\nfail-on = "note"')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert config.load(inner).fail_on == "note"
    write(inner, "[project]\nname = 'x'")
    assert config.load(inner) == Config(path=inner / "pyproject.toml")


def test_without_a_table_no_rule_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "rules", lambda: pytest.fail("the rules were loaded"))
    write(tmp_path, "[tool.other]\nx = 1")
    assert config.load(tmp_path).settings == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("selct = []", ["[tool.unvanish] has no key 'selct'", "did you mean 'select'"]),
        ('select = ["ATC001"]', ["select: no rule code begins with 'ATC001'", "did you mean 'ACT001'"]),
        ('ignore = [""]', ["ignore: no rule code begins with ''"]),
        ('select = "ACT"', ["select must be a list of codes", "'ACT' (str)"]),
        ("ignore = [1]", ["ignore must be a list of codes"]),
        ('fail-on = "errors"', ["fail-on cannot be 'errors'", "did you mean 'error'", "never"]),
        ("fail-on = 3", ["fail-on must be one of", "3 (int)"]),
        ("rules = 3", ["[tool.unvanish.rules] must hold a table"]),
        ("rules.ACT1 = {}", ["[tool.unvanish.rules] has no rule 'ACT1'", "did you mean 'ACT001'"]),
        ("rules.ACT001 = 3", ["[tool.unvanish.rules] ACT001 must be a table of settings"]),
        ("rules.ACT001.limits = 3", ["ACT001 has no setting 'limits'", "did you mean 'limit'"]),
        ('rules.ACT001.limit = "x"', ["ACT001 limit must be a number (default 0.5)", "'x' (str)"]),
        ("rules.ACT001.limit = true", ["ACT001 limit must be a number"]),
        ("rules.ACT001.units = 1.5", ["ACT001 units must be a whole number"]),
        ("rules.ACT001.exact = 1", ["ACT001 exact must be true or false"]),
        ("rules.ACT001.source = 1", ["ACT001 source must be text"]),
        ('ignore = [{code = "ATC001", reason = "x"}]', ["ignore: no rule code", "did you mean 'ACT001'"]),
        ('ignore = [{code = "ACT001"}]', ["ignore: reason must be a text"]),
        ('ignore = [{code = "ACT001", reason = " "}]', ["ignore: reason must be a text"]),
        ('ignore = [{path = "a", reason = "x"}]', ["ignore: code must be a text"]),
        ('ignore = [{cod = "ACT001"}]', ["ignore has no key 'cod'", "did you mean 'code'"]),
        ('ignore = [{code = "ACT001", reason = "x"}, 3]', ["ignore must be a list of codes"]),
        ("baseline = 3", ["baseline must be the name of a file"]),
        ("models = 3", ["[tool.unvanish.models] must hold a table for each model"]),
        ("models.a = {}", ["[tool.unvanish.models] 'a' must name its model"]),
        ('models.a = {model = "m", los = "x"}', ["'a' has no option 'los'", "did you mean 'loss'"]),
        ('models.a = {model = "m", seed = true}', ["'a' seed must be a text or a number"]),
        ("select = [", ["cannot be read"]),
    ],
)
def test_mistakes_name_file_place_and_the_right_one(tmp_path, text, told):
    path = write(tmp_path, f"[tool.unvanish]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path)
    for part in [str(path), *told]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_whose_default_is_none_takes_anything(tmp_path):
    write(tmp_path, '[tool.unvanish.rules.ACT001]\nanything = "x"')
    assert config.load(tmp_path).settings["ACT001"] == {"anything": "x"}


def test_the_tool_table_must_be_a_table(tmp_path):
    write(tmp_path, "[tool]\nunvanish = 3")
    with pytest.raises(ConfigError, match="must be a table"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("select", "ignore", "left"),
    [
        (None, None, CODES),
        (["ACT"], None, ("ACT001", "ACT002")),
        ("act, INI001", None, CODES),
        (["INI001"], None, ("INI001",)),
        (None, ["ACT"], ("INI001",)),
        (["ACT"], ["ACT001"], ("ACT002",)),
        ([], None, ()),
    ],
)
def test_prefixes_select_and_ignore(select, ignore, left):
    assert config.select_codes(CODES, select, ignore) == left


def test_an_unknown_code_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"select: .*'ATC'.*did you mean 'ACT'"):
        config.select_codes(CODES, ["ATC"])
    with pytest.raises(ConfigError, match=r"ignore: .*'INI01'.*did you mean 'INI001'"):
        config.select_codes(CODES, None, "INI01")
