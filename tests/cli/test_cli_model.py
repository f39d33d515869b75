"""MODEL: every form is understood, and every mistake ends with one line that says what would be right."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("model", ["Net", "made", "instance"])
@pytest.mark.parametrize("place", ["net.py", "net", "./net.py"])
def test_an_instance_a_class_and_a_function(call, place, model):
    answer = call("check", f"{place}:{model}", "--data", "net.py:batch", "--loss", "cross_entropy")
    assert (answer.code, answer.err) == (0, "")
    assert f"{place}:{model}" in answer.out


@pytest.mark.parametrize("model", ["both", "whole", "case"])
def test_a_function_may_bring_its_batch_and_loss(call, model):
    assert call("check", f"net.py:{model}").code == 0


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("net.py", ["net.py names no callable", "write net.py:NAME", "it defines Net, Wide"]),
        ("net.py:", ["net.py names no callable"]),
        ("nte.py:made", ["there is no file nte.py", "did you mean 'net.py'"]),
        ("nofolder/net.py:made", ["there is no file nofolder/net.py", "there is no folder nofolder"]),
        ("nte:made", ["there is no module 'nte'", "did you mean 'net'"]),
        ("torch.nnn:Linear", ["there is no module 'torch.nnn'", "did you mean 'torch.nn'"]),
        ("net.py:mdae", ["net.py has no 'mdae'", "did you mean 'made'"]),
        ("net.py:Net.made.x", ["net.py has no 'made'"]),
        ("net.py:zzzz", ["net.py has no 'zzzz'", "it defines Net"]),
        ("net.made", ["none of file.py:callable", "timm:NAME or hf:NAME", "did you mean 'net:made'"]),
        ("net.py:Wide", ["Wide needs arguments (width, depth)", "name a function without arguments"]),
        ("net.py:three", ["gave 'int'", "torch.nn.Module"]),
        ("net.py:batch", ["gave 'Tensor'", "torch.nn.Module"]),
        ("net.py:raising", ["raising() raised ValueError: bad width (net.py, line "]),
        ("net.py:leaving", ["leaving() raised SystemExit: 3"]),
        ("net.py:Net", ["came without a batch", "--data FILE.py:callable", "--input 3,224,224"]),
    ],
)
def test_a_mistake_is_reported_in_one_line(call, model, expected):
    answer = call("check", model)
    assert (answer.code, answer.out) == (2, "")
    assert answer.line.startswith("unvanish: ")
    for part in expected:
        assert part in answer.line


def test_the_users_traceback_is_shown_without_ours(call):
    answer = call("check", "net.py:raising")
    assert answer.err.startswith("Traceback")
    assert 'net.py", line' in answer.err
    assert "unvanish/cli" not in answer.err


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(:\n", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import nonexistent_thing\n", "No module named 'nonexistent_thing' (broken.py, line 1)"),
        ("import sys\nsys.exit('no')\n", "SystemExit: no (broken.py, line 2)"),
    ],
)
@pytest.mark.parametrize("place", ["broken.py", "broken"])
def test_a_file_that_cannot_be_imported(call, folder, place, source, expected):
    (folder / "broken.py").write_text(source)
    answer = call("check", f"{place}:f")
    assert answer.code == 2
    assert f"MODEL: importing {place} raised " in answer.line
    assert expected in answer.line
    assert "broken.py" in answer.err.partition("unvanish:")[0]


def test_a_file_may_import_its_neighbours_and_is_imported_once(call, folder):
    (folder / "mine.py").write_text("import net\nprint('imported')\nmodel = net.made\nbatch = net.batch\n")
    answer = call("check", "mine.py:model", "--data", "mine.py:batch", "--loss", "net:my_loss")
    assert answer.code == 0
    assert answer.out.count("imported") == 1
