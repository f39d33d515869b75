"""Findings for CI: the formats and where they go, what is ignored with a reason, the baseline."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

SICK = ("check", "net.py:sick", "--input", "10", "--no-confirm")
PART = ("check", "net.py:part", "--input", "10", "--no-confirm")
MORE = """

class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*[p for _ in range(20) for p in (nn.Linear(10, 10), nn.Sigmoid())])
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.body(x)


def part():
    torch.manual_seed(0)
    print("talking to stdout")
    return Part()
"""


@pytest.fixture
def folder(folder):
    with (folder / "net.py").open("a") as file:
        file.write(MORE)
    return folder


def line(folder, text):
    lines = (folder / "net.py").read_text().split("\n")
    return next(i for i, written in enumerate(lines, 1) if text in written)


def test_annotations_are_alone_on_stdout_and_name_the_line(call, folder):
    answer = call(*PART, "--format", "github")
    assert answer.code == 1 and answer.err == "talking to stdout\n"
    first, second = answer.out.splitlines()
    assert first.startswith(f"::error file=net.py,line={line(folder, 'self.body =')},title=ACT002 ")
    assert second.startswith(f"::warning file=net.py,line={line(folder, 'self.unused =')},title=GRF002 ")


def test_a_model_of_torchs_classes_leads_to_the_function_that_made_it(call, folder):
    assert f"line={line(folder, 'def sick')}," in call(*SICK, "--format", "github").out
    assert f"(net.py:{line(folder, 'def sick')})" in " ".join(call(*SICK).out.split())


def test_several_formats_from_one_run(call, folder):
    answer = call(*PART, "--format", "sarif=a.sarif", "--format", "junit=b.xml", "--format", "markdown=c")
    assert "error[ACT002]" in answer.out
    assert answer.err == "wrote a.sarif\nwrote b.xml\nwrote c\n"
    results = json.loads((folder / "a.sarif").read_text())["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["ACT002", "GRF002"]
    assert ElementTree.parse(folder / "b.xml").getroot().get("failures") == "2"
    assert "**fails: 2 findings**" in (folder / "c").read_text()


def test_output_is_the_file_of_the_format(call, folder):
    answer = call(*SICK, "--format", "junit", "--output", "out.xml", "--fail-on", "never")
    assert (answer.code, answer.err) == (0, "wrote out.xml\n") and "error[ACT002]" in answer.out
    assert ElementTree.parse(folder / "out.xml").getroot().get("failures") == "0"
    assert call(*SICK, "--format", "json", "--output", "-").out.startswith("{")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--format sarf", "'sarf' is not a format (did you mean 'sarif'?); the formats are text, json"),
        ("--format sarif --format github", "sarif and github both go to stdout; write --format sarif=FILE"),
        ("--json - --format github", "json and github both go to stdout"),
        ("--format sarif=no/a.sarif", "there is no folder no"),
        ("--output a.sarif", "--output is the file of one --format"),
        ("--format sarif=a --output b", "--output is the file of one --format"),
        ("--baseline none.json", "there is no baseline none.json; --write-baseline none.json makes one"),
        ("--baseline net.py", "the baseline net.py cannot be read: it is not JSON"),
        ("--write-baseline old.txt", "--write-baseline old.txt must end in .json"),
        ("--write-baseline no/old.json", "there is no folder no"),
        ("--ignore ACT002@body", "--ignore: ACT002@body has no reason; write ACT002@body=WHY"),
        ("--ignore ACT01@body=why", "--ignore: no rule code begins with 'ACT01' (did you mean 'ACT001'?)"),
        ("--ignore @body=why", "--ignore: code must be a text"),
    ],
)
def test_a_mistake_is_reported_before_the_work(call, arguments, told):
    answer = call(*PART, *arguments.split())
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.line


def test_what_is_ignored_at_a_place_does_not_count_and_is_listed(call, folder):
    some = call(*PART, "--ignore", "GRF002@unused=later, maybe")
    assert some.code == 1
    assert "GRF002 unused-parameter at unused.weight, unused.bias, ignored: later, maybe" in " ".join(
        some.out.split()
    )
    every = ("--ignore", "GRF002@unused=later", "--ignore", "ACT@body.*=studied")
    answer = call(*PART, *every)
    assert answer.code == 0 and "the gradient vanishes" in answer.out
    document = json.loads(call(*PART, *every, "--json", "-").out)
    assert document["findings"][0]["excuse"] == {"kind": "ignored", "reason": "studied"}
    assert document["findings"][0]["line"] == f"net.py:{line(folder, 'self.body =')}"
    assert document["healthy"] is False
    again = call(*PART, "--ignore", "ACT@body.1=one of them", "--ignore", "ACT@bdy=x", "--ignore", "GRF")
    assert again.code == 1 and again.line == "unvanish: --ignore ACT@bdy: there is no such finding"


def test_the_project_ignores_with_reasons(call, folder):
    (folder / "pyproject.toml").write_text(
        '[tool.unvanish]\nignore = ["GRF", {code = "ACT002", path = "body", reason = "studied"}]\n'
    )
    assert call(*PART).code == 0
    assert call(*SICK).code == 1
    forecast = call("forecast", "net.py:part", "--input", "10")
    assert (forecast.code, "ignored: studied" in forecast.out) == (0, True)


def test_a_baseline_silences_what_is_old_and_nothing_else(call, folder):
    written = call(*PART, "--write-baseline", "old.json")
    assert written.code == 0 and "wrote old.json" in written.err
    assert "in the baseline: ACT002 contracting-activation, GRF002" in " ".join(written.out.split())
    assert call(*PART, "--baseline", "old.json").code == 0
    assert call(*SICK, "--baseline", "old.json").code == 1  # another model
    assert call(*SICK, "--write-baseline", "old.json").code == 0
    assert call(*PART, "--baseline", "old.json").code == 0  # kept

    text = (folder / "net.py").read_text()
    (folder / "net.py").write_text(text.replace("self.unused =", "self.other ="))
    answer = call(*PART, "--baseline", "old.json", "--format", "github")
    assert answer.code == 1 and answer.out.count("::") == 2 and "GRF002" in answer.out
    assert "no longer found: GRF002 at unused.bias, GRF002 at unused.weight; --write-baseline" in answer.err


def test_the_project_names_its_baseline(call, folder):
    (folder / "pyproject.toml").write_text('[tool.unvanish]\nbaseline = "old.json"\n')
    assert call(*SICK).code == 2
    assert call(*SICK, "--write-baseline", "old.json").code == 0
    assert call(*SICK).code == 0
