"""What is warned of about gradients is heard in the thread that looks, and shown in all others."""

from __future__ import annotations

import threading
import warnings

import torch
from torch import Tensor, nn

import unvanish

OURS, THEIRS = "no gradient flows here", "no gradient flows there"


class Loud(nn.Linear):
    """Warns in its forward, while another thread warns too."""

    def forward(self, x: Tensor) -> Tensor:
        other = threading.Thread(target=warnings.warn, args=(THEIRS,))
        other.start()
        other.join()
        warnings.warn(OURS, stacklevel=2)
        return super().forward(x)


def test_only_the_thread_that_looks_is_heard() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for _ in range(2):
            found = unvanish.check(Loud(4, 3), torch.randn(5, 4), confirm=False)
            assert [*found.trace.facts["warned"]] == [OURS]
            assert found.trace.facts["warned"][OURS].startswith("tests/probes/test_warned.py:")
    assert THEIRS in {str(w.message) for w in shown}
    assert OURS not in {str(w.message) for w in shown}


def test_functions_and_blocks_of_other_threads_are_left_alone() -> None:
    apply = torch.autograd.Function.apply.__func__  # type: ignore[attr-defined]
    unvanish.check(nn.Linear(4, 3), torch.randn(5, 4), confirm=False)
    assert torch.autograd.Function.apply.__func__ is apply  # type: ignore[attr-defined]
