"""`unvanish forecast` and `unvanish phase`."""

from __future__ import annotations

import json

import pytest


def test_a_sick_net_is_predicted(call, folder):
    answer = call("forecast", "net.py:sick", "--input", "10", "--html", "said.html")
    assert (answer.code, answer.err) == (1, "wrote said.html\n")
    assert "[ACT002]" in answer.out
    assert "predicted, nothing was run" in answer.out
    assert "ACT002" in (folder / "said.html").read_text()


def test_a_healthy_net_gives_0(call):
    assert call("forecast", "net.py:made", "--input", "10").code == 0
    assert call("forecast", "net.py:sick", "--input", "10", "--fail-on", "never").code == 0


def test_ids_and_json(call):
    answer = call("forecast", "net.py:Text", "--input", "7", "--json", "-")
    assert answer.code == 0
    assert json.loads(answer.out)["facts"]["predicted"] is True


def test_a_model_that_does_not_take_the_batch_is_reported(call):
    answer = call("forecast", "net.py:Crash", "--input", "10")
    assert answer.code == 2
    assert "failed in inner.1 on a batch of (8, 10)" in answer.line
    assert answer.line.endswith("is that the input it expects?")


def test_the_diagram(call, folder):
    answer = call("phase", "--activation", "tanh", "--depth", "50", "--html", "phase.html")
    assert answer.code == 0
    assert "the critical line of tanh" in answer.out
    assert "for 50 layers of tanh: weights 1.1807/sqrt(fan_in), biases 0.0901 (critical)" in answer.out
    assert "order and chaos" in (folder / "phase.html").read_text()


def test_the_user_s_own_net_is_a_point(call):
    answer = call("phase", "net.py:sick", "--input", "10")
    assert answer.code == 0
    assert "X" in answer.out
    assert "sigmoid: vanishing, trainable to about" in answer.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give --activation, as in --activation tanh, or a MODEL"),
        (("--activation", "tahn"), "no activation 'tahn' (did you mean 'tanh'?)"),
        (("--activation", "tanh", "--html", "x.png"), "--html x.png must end in .html"),
    ],
)
def test_what_phase_refuses(call, arguments, expected):
    answer = call("phase", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.line
