"""What a prescription prints as code holds no statement of a hostile name or setting."""

from __future__ import annotations

import io
import math
import token
import tokenize
from dataclasses import replace

import pytest

from unvanish.clinic.prescription import Prescription, PrescriptionError
from unvanish.core.diagnosis import Remedy
from unvanish.cures import cures
from unvanish.surgery.names import parameter_expression

MARK = "INJECTED"
HOSTILE = [
    f"a\n{MARK}()",
    f"a; {MARK}()",
    f'a"); {MARK}(); ("',
    f"a'); {MARK}(); ('",
    f'a\\"); {MARK}(); (\\"',
    f"a\r{MARK}()",
    f"a\u2028{MARK}()",
    f"a.{MARK}()",
    f"{{}}.{MARK}()",
    f"a\x0c{MARK}()",
    f"a.{MARK}.sqrt",
    f"import.{MARK} or 1",
]


def words_of(code):
    """The names in code, outside of texts and comments; those on each line, if the whole is no Python."""
    for part in [code, *code.split("\n")]:
        found = []
        try:
            for item in tokenize.generate_tokens(io.StringIO(part).readline):
                found += [item.string] if item.type == token.NAME else []
        except (tokenize.TokenError, IndentationError, SyntaxError):
            pass
        yield from found


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", list(cures()))
def test_targets_stay_names(name, hostile):
    remedy = cures()[name].case()[1]
    for count in (1, 9):
        code = Prescription((replace(remedy, targets=(hostile,) * count),)).code()
        assert "\r" not in code and "\u2028" not in code and "\x0c" not in code
        for line in code.split("\n"):
            assert not line.startswith(MARK)
        if f"model.a.{MARK}" not in code and f"self.a.{MARK}" not in code:  # an honest attribute
            assert MARK not in set(words_of(code))


@pytest.mark.parametrize("hostile", [*HOSTILE, f"x; {MARK}()", "__import__('os')", "", "é", "1 or 2"])
@pytest.mark.parametrize("name", list(cures()))
def test_settings_stay_numbers_and_words(name, hostile):
    for key in cures()[name].settings:
        for value in (hostile, [hostile], {"a": hostile}, {hostile: 1}, math.nan, 10**40, None, [[1]]):
            remedy = Remedy(name, ("a",), "", "retrain", {key: value})
            try:
                code = Prescription((remedy,)).code()
            except PrescriptionError as error:
                assert "\n" not in str(error)
            else:
                if f"model.a.{MARK}" not in code:  # an honest attribute; else a name is a text in quotes
                    assert not {MARK, "__import__"} & set(words_of(code))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cure: freeze, parameters: {x: 1}", "no parameter 'x'"),
        ("cure: clip-gradient, parameters: {limit: many}", "limit must be a finite number"),
        ("cure: clip-gradient, parameters: {limit: true}", "limit must be a finite number"),
        ("cure: warm-up, parameters: {steps: 1.5}", "steps must be a whole number"),
        ("cure: warm-up, parameters: {steps: 99999999999}", "steps must be a whole number"),
        ("cure: swap-activation, parameters: {to: 'a b'}", "to must be a word"),
        ("cure: deepnorm, parameters: {ends: [1]}", "ends must be a list of names"),
        ("cure: freeze, targets: [[a]]", "targets must be names"),
        ("cure: freeze, safety: whatever", "safety 'whatever' is none of"),
    ],
)
def test_a_prescription_with_wrong_settings_is_refused(text, told):
    with pytest.raises(PrescriptionError, match=told):
        Prescription.read(f"unvanish: 1\ncures: [{{{text}}}]")


@pytest.mark.parametrize("name", ["head.weight", "0.weight", 'a"b.weight', "class.weight", "a\u202eb.weight"])
def test_an_expression_reads_the_parameter_that_is_meant(name):
    class Model:
        """Notes what is asked for."""

        def __init__(self, path=""):
            self.path = path

        def __getattr__(self, part):
            return Model(f"{self.path}.{part}".lstrip("."))

        def get_parameter(self, path):
            return Model(path)

    assert eval(parameter_expression(name), {"model": Model()}).path == name
