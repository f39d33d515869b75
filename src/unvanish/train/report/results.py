"""The results of a training or a validation: metrics, speed, the run folder, the watch's findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unvanish.core.diagnosis import Finding, at_least
from unvanish.reports.parts.words import plural
from unvanish.train.errors import TrainError
from unvanish.train.loop.progress import format_time
from unvanish.train.report.scores import Scores, name_as_known
from unvanish.train.report.stages import Stage, describe_stages

TOP = 5


@dataclass(frozen=True)
class Results:
    """The results; they print themselves. `speed`: milliseconds a sample, in training and in validation."""

    task: str
    metrics: Mapping[str, float]
    fitness: float = math.nan
    save_dir: Path | None = None
    speed: Mapping[str, float] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    verdict: str = ""
    epochs: int = 0
    steps: int = 0
    skipped: int = 0
    best_epoch: int = 0
    seconds: float = math.nan
    loss: float = math.nan
    rows: Sequence[Mapping[str, Any]] = ()
    tables: Mapping[str, Any] = field(default_factory=dict)
    names: Sequence[str] = ()
    stages: Sequence[Stage] = ()  # of a watched detector

    @property
    def healthy(self) -> bool:
        """Whether the watch found nothing at or above a warning."""
        return not at_least(self.findings, "warning")

    @property
    def results_dict(self) -> dict[str, float]:
        """The metrics under the names that YOLO users know, with the fitness."""
        return {**name_as_known(self.metrics), "fitness": self.fitness}

    @property
    def box(self) -> Scores:
        """The metrics of boxes: `.map`, `.map50`, `.map75`, `.maps`, `.mp`, `.mr`."""
        return self._score("mAP50", "boxes", "")

    @property
    def seg(self) -> Scores:
        """The same of masks."""
        return self._score("mask mAP50", "masks", "mask ")

    @property
    def top1(self) -> float:
        """The accuracy of a classifier."""
        return self._require("accuracy")

    @property
    def top5(self) -> float:
        """The share of samples whose class is among the five most probable ones; 1 for up to five classes."""
        classes = len(self.names)
        return 1.0 if self._require("accuracy") >= 0 and 0 < classes <= TOP else self._require("top5")

    @property
    def maps(self) -> Any:
        """The average precision of each class, of masks if there are any."""
        return (self.seg if "mask mAP50" in self.metrics else self.box).maps

    def _score(self, metric: str, what: str, prefix: str) -> Scores:
        if metric not in self.metrics:
            raise TrainError(
                f"these results, of the task {self.task}, have no {what}; they have {self._known()}"
            )
        return Scores(self.metrics, self.tables, prefix)

    def _require(self, metric: str) -> float:
        if metric not in self.metrics:
            raise TrainError(
                f"these results, of the task {self.task}, have no {metric}; they have {self._known()}"
            )
        return self.metrics[metric]

    def _known(self) -> str:
        return ", ".join(self.metrics) or "no metrics"

    @property
    def best(self) -> Path | None:
        """The file of the best weights; None if there is none."""
        return self._weights("best")

    @property
    def last(self) -> Path | None:
        """The file of the last weights; None if there is none."""
        return self._weights("last")

    def _weights(self, name: str) -> Path | None:
        path = None if self.save_dir is None else self.save_dir / "weights" / f"{name}.safetensors"
        return path if path is not None and path.is_file() else None

    def summary(self) -> dict[str, Any]:
        """As plain values, for results.json."""
        return {
            "task": self.task,
            "metrics": dict(self.metrics),
            "fitness": self.fitness,
            "speed": dict(self.speed),
            "findings": [{"code": f.code, "name": f.name, "cause": f.cause} for f in self.findings],
            "verdict": self.verdict,
            "stages": [asdict(stage) for stage in self.stages],
            "epochs": self.epochs,
            "steps": self.steps,
            "skipped": self.skipped,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in self.metrics.items())
        lines = [f"{self.task}: {metrics or 'no validation data'}"]
        if self.epochs:
            best = f", the best was epoch {self.best_epoch}" if self.best_epoch else ""
            done = f"{plural(self.epochs, 'epoch')}, {plural(self.steps, 'step')}"
            lines.append(f"{done} in {format_time(self.seconds)}{best}")
        if self.speed:
            lines.append(", ".join(f"{key} {value:.3g} ms a sample" for key, value in self.speed.items()))
        if self.verdict:
            lines.append(self.verdict)
        lines += describe_stages(self.stages)
        if self.save_dir is not None:
            lines.append(f"everything is in {self.save_dir}")
        return "\n".join(lines)
