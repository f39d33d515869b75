"""Ranks that train together agree on the batch after which all end, and none waits for another.

Notable: who comes first to a question answers it for all, in one key of the process group's store that is
changed only if it still holds what was last seen there. An answer that is "go" stays; a wish to end is put
down for the first question that nobody has answered yet. So all ranks read the same answer to each question,
however far they are apart, and one that ends by itself, or dies, holds up nobody.
"""

from __future__ import annotations

from unvanish.clinic.watch.line import Line, LineBroken, open_line
from unvanish.core.caution import caution

KEY, PRESENT = "answered", "present"
GO, STOP = "go", "stop"
PURPOSE = "ballot"
TRIES = 3  # wishes to end while ranks are missing, until that is said


class Ballot:
    """One rank's part. Each rank puts the same questions, by number: does the training end here?

    `line`: to the store, or None if there is none to talk through. `ranks`: how many train together; they
    all must be here before one of them can end the training.
    """

    def __init__(self, line: Line | None, ranks: int) -> None:
        self._line, self._ranks = line, ranks
        self._asked = 0
        self._seen = ""  # what the key held last; empty: not there yet
        self._complete, self._missed = False, 0
        self._said = False
        try:
            if line is not None:
                line.count(PRESENT, 1)
        except LineBroken as error:
            self._give_up(str(error))

    def ask(self, wants: bool) -> bool:
        """Whether the training ends at the next question; `wants`: this rank wishes it."""
        self._asked += 1
        if self._line is None:
            return self._say("their process group has no store to talk through") if wants else False
        try:
            return self._settle(self._line, wants and self._find_all(self._line))
        except LineBroken as error:
            return self._give_up(str(error))

    def _settle(self, line: Line, wants: bool) -> bool:
        """Read or give the answer to the present question."""
        while True:
            word, _, number = self._seen.partition(":")
            answered = int(number or 0)  # the last question with an answer, which is `word`
            if word == STOP:
                return self._asked >= answered
            if wants:
                answer = f"{STOP}:{max(self._asked, answered + 1)}"
            elif answered >= self._asked:
                return False
            else:
                answer = f"{GO}:{self._asked}"
            self._seen = line.swap(KEY, self._seen, answer)

    def _find_all(self, line: Line) -> bool:
        """Whether all ranks put questions; if not, nobody may end, as the others would wait for it."""
        if self._complete:
            return True
        here = line.count(PRESENT, 0)
        self._complete = here >= self._ranks
        self._missed += not self._complete
        if self._missed >= TRIES:
            self._say(f"{here} of {self._ranks} have a callback that may end it")
        return self._complete

    def _give_up(self, reason: str) -> bool:
        self._line = None
        return self._say(f"the store of their process group does not answer ({reason})")

    def _say(self, reason: str) -> bool:
        """Say once why no rank ends."""
        if not self._said:
            self._said = True
            caution(f"unvanish: the ranks cannot agree to stop, so the training goes on: {reason}")
        return False


def open_ballot(rank: int, ranks: int) -> Ballot:
    """A ballot for the next training of this rank."""
    return Ballot(open_line(rank, PURPOSE), ranks)
