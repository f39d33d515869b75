"""The tables of a run's file, and their version.

Notable:
- A sample is a blob of float32, [site, statistic] flattened: about 12 kB for 300 sites.
- Every step has a row in `steps`; a step has a sample only if the watch looked at it.
- Of several ranks that train together each writes its own file, and no other process writes into it; what
  came to the first rank from another machine, in a folder of its own, stands in a relayed one.
- The norms of shards in a rank's file are its part: their squares, added up over the ranks, give the whole.
"""

from __future__ import annotations

VERSION = 1
FILE = "run.sqlite"  # of the first rank, or of the only one
OWN, RELAYED = "run.{}.sqlite", "relay.{}.sqlite"  # of another rank
LOCK = "{}.lock"  # beside a file, held by the process that writes it
FILES = tuple(
    f"{name}*" for name in (FILE, OWN.format("[0-9]*"), RELAYED.format("[0-9]*"))
)  # patterns of all
PARTS = ("elements", "moved_log", "held_log")  # columns of a shard's samples that only joining needs


def name_file(rank: int) -> str:
    """The file that a rank writes."""
    return OWN.format(rank) if rank else FILE


TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sites (id INTEGER PRIMARY KEY, path TEXT NOT NULL, kind TEXT NOT NULL,
    role TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS steps (step INTEGER PRIMARY KEY, wall REAL, loss REAL, norm_log REAL,
    before_log REAL, finite INTEGER NOT NULL, clipped REAL, lr REAL, skipped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS samples (step INTEGER PRIMARY KEY, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS profiles (step INTEGER NOT NULL, site TEXT NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (step, site)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS findings (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, last INTEGER NOT NULL,
    code TEXT NOT NULL, severity TEXT NOT NULL, body TEXT NOT NULL);
"""

STEP_COLUMNS = ("step", "wall", "loss", "norm_log", "before_log", "finite", "clipped", "lr", "skipped")
