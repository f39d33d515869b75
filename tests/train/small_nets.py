"""Networks that are small enough to be trained in a test."""

from __future__ import annotations

DETECTOR = {
    "name": "tiny", "task": "detect", "activation": "silu", "norm": "steady",
    "layers": [
        {"module": "Conv", "out": 8, "stride": 4}, {"name": "p3", "module": "Conv", "out": 16, "stride": 2},
        {"name": "p4", "module": "Conv", "out": 16, "stride": 2},
        {"name": "p5", "module": "Conv", "out": 16, "stride": 2},
        {"module": "Detect", "from": ["p3", "p4", "p5"]},
    ],
}  # fmt: skip
