"""TensorBoard: `to="tensorboard"`, or the SummaryWriter that you write to yourself.

Notable: every row has its own step and time, so nothing of yours moves; names begin with "unvanish/".
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from unvanish.core.diagnosis import Finding
from unvanish.core.sink import PREFIX, Sink, SinkRow

LIBRARIES = ("torch", "numpy", "PIL")
ADOPTS = ("SummaryWriter",)


class TensorBoardSink(Sink):
    """Writes event files into the folder after the colon, else beside the run, else where TensorBoard would.

    A SummaryWriter of the user's stays open.
    """

    def __init__(self, given: Any = "") -> None:
        self._place = given if isinstance(given, str) else ""
        self._writer: Any = None if isinstance(given, str) else given
        self._owns = self._writer is None
        self._prefix = PREFIX

    def open(self, about: Mapping[str, Any]) -> None:
        self._prefix = about.get("prefix", PREFIX)
        if self._writer is None:
            folder = about.get("folder")
            beside = None if folder is None else str(Path(folder) / "tensorboard")
            self._writer = SummaryWriter(self._place or beside)

    def steps(self, rows: Sequence[SinkRow]) -> None:
        for row in rows:
            self._add(row)

    def look(self, row: SinkRow) -> None:
        self._add(row)

    def _add(self, row: SinkRow) -> None:
        time = row.time if math.isfinite(row.time) else None
        for name, value in row.values.items():
            self._writer.add_scalar(f"{self._prefix}/{name}", value, row.step, time)

    def finding(self, step: int, finding: Finding) -> None:
        text = f"**{finding.severity}[{finding.code}] {finding.name}** {finding.cause}"
        self._writer.add_text(f"{self._prefix}/{finding.code}", text, step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        try:
            from PIL import Image
        except ImportError:
            return
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._writer.add_image(f"{self._prefix}/{name}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        if self._owns:
            self._writer.close()
        else:
            self._writer.flush()


SINK = TensorBoardSink
