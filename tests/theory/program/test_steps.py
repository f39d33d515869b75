"""Programs as data: what a step and a program are without further facts."""

from __future__ import annotations

import pytest

from unvanish.theory.program.steps import Program, Step


def test_a_program_is_of_one_sample_unless_it_says_otherwise() -> None:
    assert Program((), {}, {}).batch == 1


def test_a_step_has_no_facts_and_no_path_by_default_and_shares_none() -> None:
    step = Step("relu", "activation", (0,), (1,), ((2, 3),), ((2, 3),))
    assert not step.facts and step.path == ""
    with pytest.raises(TypeError):
        step.facts["gain"] = 1.0  # type: ignore[index]
