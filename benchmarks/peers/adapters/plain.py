"""No tool at all: the training alone, beside which the losses of the others are held."""

from __future__ import annotations

from benchmarks.peers.adapter import Adapter


class Plain(Adapter):
    """Says nothing."""

    TITLE = "no tool"


ADAPTER = Plain
