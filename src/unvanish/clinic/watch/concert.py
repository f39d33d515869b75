"""What the ranks of a training do together with what each of them found, without waiting for one another.

Notable: a finding of one rank is told once, by the first rank. What raises, raises on all ranks: at a step
some way ahead, the same for all, so that none waits in vain for another; a gradient that is not finite, which
all see by themselves as a rule, at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from unvanish.clinic.watch.errors import WatchError
from unvanish.clinic.watch.exchange import PAUSE, Alarm
from unvanish.clinic.watch.ranks import Company, name_rank
from unvanish.clinic.watch.response import describe
from unvanish.clinic.watch.verdicts import Verdicts, list_keys
from unvanish.core.diagnosis import Finding
from unvanish.store.records import Records

TALKS = 4  # of the ranks' threads with the store, until an alarm has come everywhere for certain
LONGEST = 10_000  # steps ahead, at most


@dataclass(frozen=True)
class News:
    """A finding to be answered, of this rank or of another; whether it is told here, and raises now."""

    finding: Finding
    step: int
    own: bool = True
    told: bool = True
    raises: bool = True


@dataclass
class Concert:
    """One rank's part: what it announced, and what is announced to it. `raising`: "raise" was asked for.

    `told`: what this rank has told of its own, as `list_keys` names it.
    """

    company: Company
    raising: bool
    due: list[Alarm] = field(default_factory=list)
    raised: set[str] = field(default_factory=set)  # codes
    told: set[tuple[str, bool]] = field(default_factory=set)

    def tell(self, finding: Finding, step: int, lead: int) -> News:
        """What to do with a new finding of ours; `lead`: steps until all ranks act on it."""
        exchange = self.company.exchange
        named = self.company.name(finding)
        if self.company.speaks:
            self.told.update(list_keys(finding))
        if exchange is None or exchange.failure:
            return News(named, step)
        if self.raising and finding.severity != "note":
            exchange.announce(step, step + lead, finding)
            self.raised.add(finding.code)
            if lead:
                self.due.append(Alarm(exchange.rank, step, step + lead, finding))
        return News(named, step, told=self.company.speaks, raises=not lead)

    def choose_lead(self, usual: float) -> int:
        """Steps in which an alarm comes everywhere, at `usual` seconds a step."""
        if self.company.exchange is None:
            return 0
        steps = TALKS * PAUSE / usual if usual > 0 else 0.0
        return max(2, min(LONGEST, math.ceil(steps)))

    def hear(self, verdicts: Verdicts, writer: Records | None) -> list[News]:
        """What other ranks have found and this one has not."""
        exchange = self.company.exchange
        if exchange is None or not (exchange.mail.heard or exchange.mail.alarms):
            return []
        news = []
        while exchange.mail.heard:
            heard = exchange.mail.heard.popleft()
            named = name_rank(heard.finding, heard.rank)
            if heard.finding.code not in verdicts.reported and verdicts.report(named, heard.step, writer):
                news.append(News(named, heard.step, own=False, raises=False))
        while exchange.mail.alarms:
            alarm = exchange.mail.alarms.popleft()
            if self.raising and alarm.finding.code not in self.raised:
                self.raised.add(alarm.finding.code)
                self.due.append(alarm)
        return news

    def raise_due(self, step: float) -> None:
        """WatchError if something was due by this step."""
        for alarm in self.due:
            if step >= alarm.act:
                self.due.remove(alarm)
                finding = name_rank(alarm.finding, alarm.rank)
                raise WatchError(f"{describe(finding, alarm.step)}\n  raised on every rank", finding)

    def close(self, verdicts: Verdicts, writer: Records | None) -> list[News]:
        """End the exchange; what came last, and what of ours reached nobody."""
        exchange = self.company.exchange
        if exchange is None:
            return []
        lost = {h.finding.code: h for h in exchange.close()}  # as it was last; each of its looks is a record
        untold = [
            News(name_rank(h.finding, h.rank), h.step, own=False, raises=False)
            for h in lost.values()
            if list_keys(h.finding)[-1] not in self.told
        ]
        return self.hear(verdicts, writer) + untold
