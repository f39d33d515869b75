"""The order-chaos diagram of an activation: its critical line, the user's own net, the start for a depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unvanish.core.plain import plain
from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import (
    COUNT,
    FLAG,
    NUMBER,
    STRING,
    describe_document,
    list_of,
    object_of,
    or_null,
)  # fmt: skip
from unvanish.reports.phase.bands import OwnNet
from unvanish.theory.initialisers import start
from unvanish.theory.phase import Phase, depth_of

NAME = "unvanish.phase/1"
SCHEMA = describe_document(
    "Which weights and biases let a deep net train, by unvanish",
    NAME,
    {},
    activation=STRING,
    critical=list_of(object_of(sw=NUMBER, sb=NUMBER, q=NUMBER, stable=FLAG)),
    nets=list_of(object_of(name=STRING, sw=NUMBER, sb=NUMBER, log_chi=NUMBER, depth=NUMBER)),
    start=or_null(object_of(depth=COUNT, sw=NUMBER, sb=NUMBER, critical=FLAG)),
)


def build(diagram: Phase, own: Sequence[OwnNet] = (), depth: int | None = None) -> dict[str, Any]:
    """The diagram's critical line; for each own net ln chi and the layers it can be trained to.

    `start`: weights (deviation x sqrt(fan-in)) and biases for a net of `depth` layers.
    """
    point = None if depth is None else start(diagram.activation, depth)
    nets = [(net, *depth_of(diagram.activation, net.sw, net.sb)) for net in own]
    return {
        **begin(NAME),
        "activation": diagram.activation,
        "critical": [
            {"sw": plain(p.sw), "sb": plain(p.sb), "q": plain(p.q), "stable": bool(p.stable)}
            for p in diagram.critical
        ],
        "nets": [
            {**plain(net), "log_chi": plain(float(log)), "depth": plain(float(deep))}
            for net, log, deep in nets
        ],
        "start": None
        if point is None
        else {
            "depth": depth, "sw": plain(point.sw), "sb": plain(point.sb), "critical": bool(point.critical),
        },
    }  # fmt: skip
