"""What is off in the process while a thread looks: warnings are kept back, but for our own."""

from __future__ import annotations

import warnings

from unvanish.core.caution import caution
from unvanish.probes.shared_changes import SILENCE


def test_only_our_own_warnings_are_heard_while_somebody_looks() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        SILENCE.enter(1)
        try:
            warnings.warn("of the program's forward", stacklevel=1)
            caution("unvanish: the watch of a model failed")
        finally:
            SILENCE.leave(1)
        warnings.warn("after it", stacklevel=1)
    assert [str(w.message) for w in heard] == ["unvanish: the watch of a model failed", "after it"]
