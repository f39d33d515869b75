"""Names of a model's parts as Python expressions: what is written evaluates to the names."""

from __future__ import annotations

import pytest

from unvanish.surgery.names import list_names


@pytest.mark.parametrize(
    ("names", "short"),
    [
        ([f"conv{k}.weight" for k in range(30)], True),
        ([f"{k}" for k in range(1, 40, 2)], True),
        (["stem.weight", *(f"blocks.{k}.fc.weight" for k in range(6)), "head.weight"], True),
        ([f"layer{k:02d}.weight" for k in range(4)], False),  # numbers with zeros before them
        (["a1", "a3", "a4", "a9"], False),
        (["a5", "a4", "a3"], False),
        (["a0", "a2", "a4"], True),
        (["a7", "a8", "a9"], True),
        (["a\"]; b['1", "{k}0", "{k}1", "{k}2"], False),
    ],
)
def test_an_expression_gives_the_names(names: list[str], short: bool) -> None:
    written = list_names(names)
    assert sorted(eval(written)) == sorted(names)
    assert ("range(" in written) == short
