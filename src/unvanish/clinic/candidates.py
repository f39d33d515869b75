"""Candidates of a cure: what the findings ask for, then what helps such faults in general."""

from __future__ import annotations

from dataclasses import dataclass

from unvanish.core.diagnosis import Remedy

DEPTH = ("INI001", "INI002", "ACT001", "ACT002", "ACT003", "DEP001", "DEP002", "DEP003", "NRM001")
FOLLOWED: dict[str, tuple[str, ...]] = {  # remedies that are only half of one
    "swap-activation": ("reinitialise",),
    "swap-normalisation": ("reinitialise",),
    "zero-bias": (),
}
GENERAL: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(
        DEPTH,
        (
            ("reinitialise",), ("backward-lsuv",), ("reinitialise", "backward-lsuv"),
            ("insert-normalisation",), ("tat",), ("dks",), ("add-skips",), ("add-skips", "reinitialise"),
            ("scale-branches",), ("zero-init-branches",), ("reinitialise", "insert-normalisation"),
            ("insert-normalisation", "add-skips"),
        ),
    ),
    "INI003": (("reinitialise",),),
    "INP001": (("standardise-input",), ("standardise-input", "reinitialise")),
    "NRM002": (("pre-normalisation",), ("deepnorm",), ("admin",)),
    "ATT001": (("qk-norm",), ("reinitialise",)),
    "ATT002": (("pre-normalisation",), ("deepnorm",), ("reinitialise",), ("add-skips",), ("qk-norm",)),
    "REC001": (
        ("chrono-bias",), ("orthogonal-recurrence",), ("chrono-bias", "orthogonal-recurrence"),
        ("replace-cell",), ("standardise-input",), ("forget-gate-bias",),
    ),
    "REC002": (("orthogonal-recurrence",), ("orthogonal-recurrence", "chrono-bias"), ("replace-cell",)),
    "OUT001": (
        ("shrink-output-layer",), ("use-loss-with-logits",),
        ("shrink-output-layer", "use-loss-with-logits"),
    ),
    "OUT003": (("shrink-output-layer",), ("reinitialise",)),
    "PRC001": (("bfloat16",), ("keep-float32",)),
    "PRC002": (("bfloat16",), ("keep-float32",)),
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Remedies to be planned and applied one after the other."""

    remedies: tuple[Remedy, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The cures' names."""
        return tuple(r.cure for r in self.remedies)
