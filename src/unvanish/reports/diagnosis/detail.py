"""How much of a diagnosis a report shows: everything, or as much as fits a screen.

Notable: `parts/screen.py` begins with the least, and grants one wish after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Detail:
    """At most so many: findings in full, further ones in brief, numbers and remedies of each, rows of the
    ledger, recurrences, lines of a sentence. `airy`: blank lines between all blocks; `whole`: everything that
    was judged is listed, too.
    """

    full: int = 1
    brief: int = 0
    numbers: int = 0
    remedies: int = 1
    rows: int = 0
    recurrences: int = 0
    sentence: int = 1
    airy: bool = False
    whole: bool = False


WHOLE = Detail(10, 0, 8, 6, 16, 6, 1_000, airy=True, whole=True)
WISHES: tuple[dict[str, Any], ...] = (
    {"sentence": 2},
    {"rows": 1},
    {"sentence": 3},
    {"recurrences": 1},
    {"numbers": 1},
    {"brief": 1},
    {"rows": 4},
    {"numbers": 2},
    {"remedies": 2},
    {"sentence": 4},
    {"numbers": 3},
    {"rows": 6},
    {"sentence": 6},
    {"brief": 2},
    {"numbers": 4},
    {"airy": True},
    {"remedies": 3},
    {"rows": 8},
    {"full": 2},
    {"brief": 4},
    {"remedies": 4, "numbers": 5},
    {"rows": 10, "recurrences": 2},
    {"full": 3, "numbers": 6},
    {"rows": 12, "sentence": 8},
    {"recurrences": 4, "remedies": 6},
    {"rows": 16, "numbers": 8},
    {"full": 4},
    {"full": 6},
)  # of a reader, the most urgent first
