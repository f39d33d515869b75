"""What words may stand for: each kind of claim, and the planted codes that it would be a right answer to.

Notable: generous. "Vanishing" is right of everything that makes a gradient small, whatever the cause; "the
loss does not fall" is true of nearly everything and so names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CODES: dict[str, str] = {
    "vanishing": "ACT001 ACT002 ACT003 ATT001 ATT002 DEP001 DEP003 GRF004 GRF007 INI001 INP001 INP002 NRM002"
    " OUT001 OUT003 OUT006 PRC001 REC001",
    "exploding": "ACT001 ACT004 DEP002 DEP003 INI002 INP001 NRM001 NRM002 OUT003 OUT005 OPT008 PRC002 REC002",
    "non-finite": "NUM001 PRC002",
    "dead units": "ACT003 ACT004",
    "saturation": "ACT001 ATT001 INP001 OUT001 OUT003 OUT006",
    "no gradient": "GRF001 GRF002 GRF004 GRF005 GRF006 GRF007 GRF009 INP003 MOE001 PRC001",
    "unused": "GRF001 GRF002 MOE001",
    "not optimised": "GRF005 OPT004",
    "does not move": "GRF001 GRF002 GRF004 GRF005 GRF007 MOE001 OPT004 OPT006 PRC003",
    "update too small": "ACT002 INI001 OPT002 OPT006 PRC003",
    "update too large": "INI002 OPT001 OPT008",
    "collapse": "ATT002 DEP001 INI003 INP003 NRM003",
    "initialisation": "INI001 INI002 INI003",
    "first loss": "INI002 LEA002 OUT001 OUT002 OUT003 OUT005",
    "input range": "INP001 INP002 INP003",
    "input ignored": "ATT001 DEP001 GRF001 INP002 INP003",
    "samples mixed": "LEA001",
    "wrong derivative": "NUM002",
    "wrong mode": "NRM003",
    "nothing": "",  # true of nearly every sick training, and of many healthy ones
}
KINDS = {kind: frozenset(codes.split()) for kind, codes in CODES.items()}


@dataclass(frozen=True)
class Said:
    """One warning of a tool: its words, the kind they stand for or a code, the modules that it blames."""

    words: str
    claim: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exam:
    """What is known of a case: the codes of which one is right (none if healthy), and the planted modules."""

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
    """Whether a planted module is blamed, and not half of all or more; None if the place is not known."""
    if not exam.planted:
        return None
    blamed = {place for s in said for place in s.places if place}
    if exam.modules > 1 and len(blamed) > max(1, exam.modules // 2, len(exam.planted)):
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
