"""The exam of other tools: its cases, loop, kinds and tables; no other tool is installed for it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import __main__ as command  # noqa: E402
from benchmarks.peers import absent, environments, sheet  # noqa: E402
from benchmarks.peers.adapter import Adapter, module_of  # noqa: E402
from benchmarks.peers.ask import ask  # noqa: E402
from benchmarks.peers.cases import Case, list_cases, make_trial, surround, twins  # noqa: E402
from benchmarks.peers.kinds import KINDS, Answer, Exam, Said, claim_of, name_kind, name_place  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
ADAPTERS = command.adapters()
DEAD = 1_000_002  # a test seed whose plant is ACT003


def trial():
    """Three layers on a batch of eight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    batch = torch.randn(8, 6), torch.randint(0, 3, (8,))
    return make_trial(model, batch, nn.CrossEntropyLoss())


def case(build):
    return Case("made", "planted", build)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_says_what_it_is(name):
    kind = ADAPTERS[name]
    assert kind.TITLE and kind.__doc__ and kind.USED in ("watches a training", "one call")
    assert set(kind.CLAIMS.values()) <= set(KINDS)
    assert all("==" in required or "<" in required for required in kind.REQUIRES)


def test_titles_are_unique_and_nobody_is_both_asked_and_absent():
    titles = [kind.TITLE for kind in ADAPTERS.values()]
    assert len(set(titles)) == len(titles)
    assert not {t.lower() for t in titles} & {t.lower() for t in (*absent.TRIED, *absent.UNASKED)}


def test_a_training_with_no_tool_is_an_ordinary_training():
    answer = ask(ADAPTERS["plain"], case(trial), 5)
    given, losses = trial(), []
    for _ in range(5):
        given.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(given.model(given.batch[0]), given.batch[1])
        loss.backward()
        given.optimizer.step()
        losses.append(loss.item())
    assert answer.losses == tuple(losses) and not answer.said and not answer.error


def test_our_own_adapters_name_the_plant_and_leave_its_twin_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sick, fixed = twins(DEAD)
    for name in ("unvanish_check", "unvanish_watch"):
        told = ask(ADAPTERS[name], sick, 6)
        assert not told.error and told.said[0].claim == "ACT003" and name_kind(told.said, told.exam.codes)
        assert name_place(told.said, told.exam)
        assert ask(ADAPTERS[name], fixed, 6).said == []


def test_the_watch_does_not_change_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone, watched = (ask(ADAPTERS[name], case(trial), 12) for name in ("plain", "unvanish_watch"))
    assert watched.losses == alone.losses


def test_a_rule_that_was_read_speaks():
    def dead():
        given = trial()
        with torch.no_grad():
            given.model[0].bias.fill_(-1e3)
        return given

    told = ask(ADAPTERS["dlcheck_rule"], case(dead), 3)
    assert {"dead units", "no gradient"} <= {said.claim for said in told.said}

    def large():
        given = trial()
        return dataclasses.replace(given, loss=lambda out, y: 1e6 * nn.functional.cross_entropy(out, y))

    assert [s.claim for s in ask(ADAPTERS["lightning_rule"], case(large), 2).said] == ["exploding"]
    assert ask(ADAPTERS["lightning_rule"], case(trial), 2).said == []


def test_anomaly_mode_speaks_by_its_error():
    def broken():
        given = trial()
        return dataclasses.replace(given, loss=lambda out, y: torch.sqrt(out * 0).sum() + (out * 0).sum())

    told = ask(ADAPTERS["anomaly_mode"], case(broken), 2)
    assert not told.error and [said.claim for said in told.said] == ["non-finite"]


def test_a_tool_that_fails_is_no_silence():
    class Failing(Adapter):
        TITLE = "failing"

        def after_step(self, step, loss, trial):
            raise ValueError("it cannot")

    told = ask(Failing, case(trial), 3)
    assert told.error == "ValueError: it cannot" and not told.said


def test_the_exam_has_both_sides_and_no_unvanish():
    groups = [c.group for c in list_cases(2, 1, 80)]
    assert groups.count("planted") == groups.count("twin") == 2
    assert groups.count("reported") == groups.count("mended") >= 2
    code = "import sys, benchmarks.peers.ask; sys.exit('unvanish' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_words_and_places():
    assert (
        claim_of("the gradient is EXPLODING", {"vanish": "vanishing", "explod": "exploding"}) == "exploding"
    )
    assert claim_of("hm", {"vanish": "vanishing"}) == "nothing"
    assert name_kind([Said("x", "vanishing")], ("ACT002",)) and not name_kind(
        [Said("x", "nothing")], ("ACT002",)
    )
    assert name_kind([Said("x", "ACT002")], ("ACT002",)) and not name_kind([Said("x", "ACT002")], ("ACT001",))
    exam = Exam(("ACT001",), ("layer3",), 10)
    assert name_place([Said("x", "vanishing", ("layer3",))], exam)
    assert not name_place([Said("x", "vanishing", ("layer4",))], exam)
    assert not name_place([Said("x", "vanishing", tuple(f"layer{i}" for i in range(8)))], exam)  # blames all
    assert name_place([Said("x", "vanishing", ("layer3",))], Exam(("ACT001",))) is None
    assert (
        module_of("a.b.weight") == "a.b"
        and module_of("a.in_proj_weight") == "a"
        and module_of("a.b") == "a.b"
    )


def test_what_stands_beside_the_plant_counts():
    assert surround(trial().model, ("2",)) == ("1", "2", "3")
    assert surround(trial().model, ()) == ()


def test_answers_are_read_back_and_judged(tmp_path):
    known = Exam(("ACT002",), ("body",), 4)
    answers = [
        Answer(
            "a", "planted", known, [Said("vanishing", "vanishing", ("body",))], losses=(1.0, float("nan"))
        ),
        Answer("b", "planted", known, error="ValueError: no"),
        Answer("c", "twin", Exam(), [Said("dead", "dead units")], losses=(2.0,)),
        Answer("d", "healthy", Exam(), losses=(3.0,)),
    ]
    lines = [{"cost": {"times": 1.5, "low": 1.4, "high": 1.6}}, *map(dataclasses.asdict, answers)]
    out = tmp_path / "tool.jsonl"
    out.write_text("\n".join(json.dumps(line) for line in lines))
    cost, read = command.read(out, {})
    assert command.read(out, {"dead": "collapse"})[1][2].said[0].claim == "collapse"
    assert str(read) == str(answers)
    plain = [dataclasses.replace(a, losses=a.losses if a.case != "d" else (4.0,)) for a in read]
    row = sheet.Row("tool", "watches a training", {"tool": "1.0"}, cost, read)
    judged = sheet.judge(row, sheet.Row("no tool", "", answers=plain))
    assert (judged.said, judged.kind, judged.place) == ((1, 2), (1, 2), (1, 2))
    assert (judged.fixed, judged.healthy, judged.fails, judged.same) == ((1, 1), (0, 1), (1, 4), (2, 3))
    text = sheet.markdown(
        [judged, sheet.judge(sheet.Row("gone", "", trouble="not installed: x"), None)], {"z": "no package"}
    )
    assert (
        "| tool | 1 of 2 | 1 of 2 |" in text and "not installed: x" in text and "| z | no package |" in text
    )


def test_why_pip_refused():
    text = "WARNING: old\nERROR: Cannot install a\nThe conflict is caused by:\n    a 1 depends on torch<2\n"
    assert environments.reason(text) == "a 1 depends on torch<2"
    assert (
        environments.reason("error: metadata-generation-failed\nhint: see above")
        == "error: metadata-generation-failed"
    )
    assert environments.pins()["torch"]
