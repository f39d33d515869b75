"""What words may stand for: each kind of claim, and the planted codes that it would be a right answer to.

Notable: generous. "Vanishing" is right of everything that makes a gradient small, whatever the cause; "the
loss does not fall" is true of nearly everything and so names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

KINDS: dict[str, frozenset[str]] = {
    "vanishing": frozenset(
        [
            "ACT001",
            "ACT002",
            "ACT003",
            "ATT001",
            "ATT002",
            "DEP001",
            "DEP003",
            "GRF007",
            "INI001",
            "INP001",
            "NRM002",
            "OUT001",
            "OUT003",
            "OUT006",
            "PRC001",
            "REC001",
            "INP002",
        ]
    ),
    "exploding": frozenset(
        [
            "ACT001",
            "ACT004",
            "DEP002",
            "DEP003",
            "INI002",
            "INP001",
            "NRM001",
            "NRM002",
            "OUT003",
            "OUT005",
            "PRC002",
            "REC002",
            "OPT008",
        ]
    ),
    "non-finite": frozenset(["NUM001", "PRC002"]),
    "dead units": frozenset(["ACT003", "ACT004"]),
    "saturation": frozenset(["ACT001", "ATT001", "OUT001", "OUT003", "INP001", "OUT006"]),
    "no gradient": frozenset(
        ["GRF001", "GRF002", "GRF004", "GRF005", "GRF006", "GRF007", "GRF009", "PRC001", "MOE001", "INP003"]
    ),
    "unused": frozenset(["GRF002", "GRF001", "MOE001"]),
    "not optimised": frozenset(["OPT004", "GRF005"]),
    "does not move": frozenset(
        ["OPT004", "GRF001", "GRF002", "GRF004", "GRF005", "GRF007", "PRC003", "OPT006", "MOE001"]
    ),
    "update too small": frozenset(["PRC003", "OPT002", "OPT006", "INI001", "ACT002"]),
    "update too large": frozenset(["OPT001", "OPT008", "INI002"]),
    "collapse": frozenset(["DEP001", "ATT002", "INI003", "INP003", "NRM003"]),
    "initialisation": frozenset(["INI001", "INI002", "INI003"]),
    "first loss": frozenset(["OUT001", "OUT002", "OUT003", "OUT005", "LEA002", "INI002"]),
    "input range": frozenset(["INP001", "INP002", "INP003"]),
    "input ignored": frozenset(["DEP001", "ATT001", "INP003", "INP002", "GRF001"]),
    "samples mixed": frozenset(["LEA001"]),
    "wrong derivative": frozenset(["NUM002"]),
    "wrong mode": frozenset(["NRM003"]),
    "nothing": frozenset(),  # true of nearly every sick training, and of many healthy ones
}


@dataclass(frozen=True)
class Said:
    """One warning of a tool: its words, the kind they stand for or a code, the modules that it blames."""

    words: str
    claim: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exam:
    """What is known of a case: the codes of which one is right (none if healthy), the planted modules."""

    codes: tuple[str, ...] = ()
    planted: tuple[str, ...] = ()
    modules: int = 0  # that hold parameters


def claim_of(words: str, table: Mapping[str, str]) -> str:
    """The kind of the first pattern that the words match; "nothing" if none does."""
    return next((kind for pattern, kind in table.items() if re.search(pattern, words, re.I)), "nothing")


def name_kind(said: Iterable[Said], codes: Iterable[str]) -> bool:
    """Whether one of the claims stands for one of the codes."""
    wanted = set(codes)
    return any(s.claim in wanted or KINDS.get(s.claim, frozenset()) & wanted for s in said)


def name_place(said: Iterable[Said], exam: Exam) -> bool | None:
    """Whether a planted module is blamed, and fewer than half of all; None if the place is not known."""
    if not exam.planted:
        return None
    blamed = {place for s in said for place in s.places if place}
    if exam.modules > 1 and len(blamed) > max(1, exam.modules // 2):
        return False
    return any(one.startswith(name) or name.startswith(one) for one in blamed for name in exam.planted)


@dataclass
class Answer:
    """What one tool said of one case: `error` if it, and not the model, failed; losses as it trained."""

    case: str
    group: str
    exam: Exam
    said: list[Said] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
