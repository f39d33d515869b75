"""What does not count, and why: places that are ignored, old findings of a baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unvanish.clinic import baseline
from unvanish.clinic.baseline import Baseline, BaselineError, collect
from unvanish.clinic.excuses import Ignore, excuse, list_unused
from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.trace import STATISTICS, Trace
from unvanish.rules._places import MOST

NOTHING = Trace((), np.zeros((0, 0, len(STATISTICS))))


def find(*findings: Finding, subject: str = "net.py:Net") -> Diagnosis:
    return Diagnosis(findings, NOTHING, subject=subject)


def fault(*sites: str, code: str = "ACT001", severity: str = "warning") -> Finding:
    return Finding(code, "some-fault", severity, "cause", sites)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("*", "", True),
        ("*", "a.b", True),
        ("a", "a", True),
        ("a", "a.b.c", True),  # what lies below
        ("a", "ab", False),
        ("a.*.act", "a.3.act", True),
        ("a.*.act", "a.3.linear", False),
        ("a.?", "a.12", False),
        ("a.[12]", "a.2.weight", True),
        ("A", "a", False),
        ("b", "a.b", False),
    ],
)
def test_a_glob_covers_modules_and_what_lies_below(pattern, path, covered):
    assert Ignore("ACT", pattern, "why").covers("ACT001", path) == covered
    assert not Ignore("GRF", pattern, "why").covers("ACT001", path)


def test_a_finding_is_excused_only_at_all_its_places():
    ignores = (Ignore("ACT001", "a", "first"), Ignore("ACT", "b.*", "second"))
    both, more = fault("a[2]", "b.act"), fault("a", "b.act", "c")
    judged = excuse(find(both, more, fault()), ignores)
    assert judged.findings[0].excuse is not None
    assert judged.findings[0].excuse.reason == "first; second"
    assert judged.excused == judged.findings[:1]
    assert judged.counted("note") == (more, fault())
    assert not judged.healthy  # it is there all the same


def test_the_whole_model_is_a_place():
    for finding in (fault(), fault("(model)"), fault("")):
        assert finding.paths == ("",)
        assert excuse(find(finding), [Ignore("ACT001", "*", "why")]).excused
        assert not excuse(find(finding), [Ignore("ACT001", "a", "why")]).excused


def test_what_a_finding_explains_needs_its_ignore():
    found = find(replace(fault("a"), consequences=(fault("b", code="DEP001"),)))
    ignores = (Ignore("ACT001", "a", "x"), Ignore("DEP001", "b", "x"), Ignore("GRF", "*", "x"))
    assert list_unused(found, ignores) == ignores[2:]


def test_a_baseline_knows_code_path_and_severity():
    old = Baseline().renew("net.py:Net", collect(find(fault("a", "b")), "warning"))
    for known in (fault("a"), fault("b[1]", "a"), fault("a", severity="note")):
        (excused,) = excuse(find(known), (), old).excused
        assert excused.excuse is not None and excused.excuse.kind == "baseline"
    new = (fault("a", "c"), fault("a", code="ACT002"), fault("a", severity="error"), fault())
    assert excuse(find(*new), (), old).excused == ()
    assert excuse(find(fault("a"), subject="net.py:Other"), (), old).excused == ()


def test_a_baseline_holds_what_counts():
    found = find(fault("a"), fault("b", severity="note"), fault("c", code="GRF001"))
    left = excuse(found, [Ignore("GRF001", "c", "why")])
    assert collect(left, "warning") == {"ACT001": {"a": "warning"}}
    assert collect(left, "note") == {"ACT001": {"a": "warning", "b": "note"}}
    assert collect(find(fault("a"), fault("a", severity="error")), "note") == {"ACT001": {"a": "error"}}


def test_of_a_list_that_is_cut_half_must_be_old():
    places = [f"layers.{k}" for k in range(40)]
    old = Baseline().renew("net.py:Net", collect(find(fault(*places[:MOST])), "warning"))
    for shift, known in ((0, True), (MOST // 2, True), (MOST // 2 + 1, False), (20, False)):
        moved = find(fault(*places[shift : shift + MOST]))
        assert bool(excuse(moved, (), old).excused) == known
        assert old.list_stale(moved) == ()
    shorter = find(fault(*places[6:14]))
    assert not excuse(shorter, (), old).excused and len(old.list_stale(shorter)) == 6


def test_stale_entries_are_listed_and_renewing_keeps_other_models():
    old = Baseline({"m": {"ACT001": {"a": "warning", "": "error"}}, "other": {"GRF001": {"x": "error"}}})
    inner = replace(fault("x", code="DEP001"), consequences=(fault("a"),))
    assert old.list_stale(find(inner, subject="m")) == ("ACT001 at (model)",)
    assert old.list_stale(find(subject="m")) == ("ACT001 at a", "ACT001 at (model)")
    assert old.list_stale(find(subject="new")) == ()
    assert old.renew("m", {}).models == {"other": {"GRF001": {"x": "error"}}}
    assert old.renew("m", {"INI001": {"b": "error"}}).models["other"] == {"GRF001": {"x": "error"}}


def test_a_baseline_survives_its_file(tmp_path):
    made = Baseline({"größe \x1b\ud800": {"ACT001": {"a|b\n": "warning"}}})
    path = baseline.write(tmp_path / "old.json", made)
    assert baseline.read(path) == made
    assert json.loads(path.read_text())["schema"] == "unvanish.baseline/1"
    assert [file.name for file in tmp_path.iterdir()] == ["old.json"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "it is not JSON"),
        ("[" * 5000, "lie within each other"),
        ("[]", "its schema is None"),
        ('{"schema": "unvanish.baseline/2", "models": {}}', "its schema is 'unvanish.baseline/2'"),
        ('{"schema": "unvanish.baseline/1"}', "models must hold"),
        (
            '{"schema": "unvanish.baseline/1", "models": {"m": {"ACT001": {"a": "fatal"}}}}',
            "models must hold",
        ),
        ('{"schema": "unvanish.baseline/1", "models": {"m": {"ACT001": ["a"]}}}', "models must hold"),
        ('{"schema": "unvanish.baseline/1", "models": {"m": {"ACT001": {"a": []}}}}', "models must hold"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str, told: str):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match=r"old\.json") as caught:
        baseline.read(path)
    assert told in str(caught.value)


def test_a_baseline_is_not_written_through_a_link(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")
    with pytest.raises(OSError, match="it is a link"):
        baseline.write(tmp_path / "link.json", Baseline())
