"""Where a forward is in its model."""

from __future__ import annotations

from unvanish.probes.live.place import ForwardPlace


def test_a_module_that_catches_takes_those_that_raised_off() -> None:
    place = ForwardPlace()
    place.begin()
    place.stack += ["", "block", "block.inner"]
    assert place.path == "block.inner"
    place.leave("block")  # block.inner raised, block caught it
    assert place.path == ""


def test_calls_are_counted_by_path_and_kind_in_each_forward() -> None:
    place = ForwardPlace()
    place.begin()
    assert [place.count("a", "relu"), place.count("a", "relu"), place.count("b", "relu")] == [
        ("a", "relu", 0),
        ("a", "relu", 1),
        ("b", "relu", 0),
    ]
    place.begin()
    assert place.count("a", "relu") == ("a", "relu", 0)
