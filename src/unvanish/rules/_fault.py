"""What a rule finds; the code and the name of the finding are those of the rule's file.

Notable: beside a limit stands what was measured. A number that was not (NaN) is left out there, and one that
is not finite is said in words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from unvanish.core.diagnosis import Direction, Evidence, Finding, Remedy, Severity
from unvanish.rules._tiers import REMARK, Tier

UNBOUNDED = "not finite"
RULE_FILE = re.compile(r"([a-z]{3}\d{3})_([a-z0-9_]+)")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A finding without its code, name and weight, which `Rule.check` adds.

    `tier` and `size` say how it is ordered among the findings of its severity: see `_tiers`.
    """

    severity: Severity
    cause: str
    sites: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    remedies: tuple[Remedy, ...]
    direction: Direction
    tier: Tier
    size: float = 0.0

    def as_finding(self, code: str, name: str) -> Finding:
        """The finding of the rule with this code and name."""
        return Finding(
            code=code,
            name=name,
            severity=self.severity,
            cause=self.cause,
            sites=self.sites,
            evidence=tuple(_keep_measured(self.evidence)),
            remedies=self.remedies,
            direction=self.direction,
            weight=self.tier.weigh(self.size),
        )


def _keep_measured(evidence: Iterable[Evidence]) -> Iterable[Evidence]:
    """The evidence that can be held against its limit."""
    for item in evidence:
        if not item.limit or isinstance(item.value, str) or math.isfinite(item.value):
            yield item
        elif math.isinf(item.value):
            yield replace(item, value=UNBOUNDED)


def blame_loss(
    cause: str,
    evidence: Evidence,
    remedy: Remedy,
    tier: Tier,
    *,
    size: float = 0.0,
    note: bool = False,
    direction: Direction = "none",
) -> Fault:
    """The fault of a loss as a whole: a warning, or a note of little harm."""
    return Fault(
        severity="note" if note else "warning",
        cause=cause,
        sites=("loss",),
        evidence=(evidence,),
        remedies=(remedy,),
        direction=direction,
        tier=REMARK if note else tier,
        size=size,
    )


def identify(module: str) -> tuple[str, str] | None:
    """Code and name of the rule in a module, by its dotted name; None if the module is not a rule."""
    match = RULE_FILE.fullmatch(module.rpartition(".")[2])
    return (match[1].upper(), match[2].replace("_", "-")) if match else None
