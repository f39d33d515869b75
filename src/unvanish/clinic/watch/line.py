"""A connection of our own to the key-value store of the process group.

Notable: nothing here waits for another rank. A key is read only if it is there, and what a training does
on its own connection is not held up. It is a talk with the store's server, never a collective; what fails
in it is `LineBroken`, as when the process of the server has ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

from unvanish.core.caution import summarize

PATIENCE = timedelta(seconds=10)  # for an answer of the server, in the thread that asks


class LineBroken(Exception):
    """The store does not answer; the text says what it said."""


@dataclass
class Channel:
    """Numbered messages under one name, as far as they were read."""

    name: str
    read: int = 0  # the last number that was looked for
    holes: dict[int, int] = field(
        default_factory=dict
    )  # numbers taken whose message was not there, looks at them


class Line:
    """Messages in a store, under names that only the same watch of the other ranks uses."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def has(self, name: str) -> bool:
        """Whether something is written under a name."""
        return bool(self._ask("check", [self._prefix + name]))

    def write(self, name: str, message: Any) -> None:
        """Write plain data under a name."""
        self._ask("set", self._prefix + name, json.dumps(message))

    def read(self, name: str) -> Any:
        """What is written under a name; None without."""
        return json.loads(self._ask("get", self._prefix + name)) if self.has(name) else None

    def settle(self, name: str, wanted: int) -> int:
        """The number that the first rank to ask has chosen."""
        return int(self._ask("compare_set", self._prefix + name, "", str(wanted)))

    def swap(self, name: str, seen: str, wanted: str) -> str:
        """Write a text if `seen` is still what is there (empty: nothing yet); what is there then."""
        found = self._ask("compare_set", self._prefix + name, seen, wanted)
        return str(found.decode() if isinstance(found, bytes) else found)

    def count(self, name: str, more: int) -> int:
        """Add to a number that all ranks see; what it is then."""
        return int(self._ask("add", self._prefix + name, more))

    def post(self, channel: str, message: Any) -> str:
        """Add a message to a channel; its own name."""
        name = f"{channel}/{self.count(channel, 1)}"
        self.write(name, message)
        return name

    def collect(self, channel: Channel, *, keep: bool) -> Iterator[Any]:
        """The messages of a channel that were not read before; `keep`: others read them too."""
        total = self.count(channel.name, 0)
        channel.holes.update(dict.fromkeys(range(channel.read + 1, total + 1), 0))
        channel.read = max(channel.read, total)
        for number in list(channel.holes):
            message = self.read(name := f"{channel.name}/{number}")
            channel.holes[number] += 1
            if message is not None or channel.holes[number] > 100:  # its writer may have died in between
                del channel.holes[number]
            if message is not None:
                if not keep:
                    self._ask("delete_key", self._prefix + name)
                yield message

    def _ask(self, what: str, *args: Any) -> Any:
        """What the store answers; LineBroken if it does not."""
        try:
            return getattr(self._store, what)(*args)
        except Exception as error:
            raise LineBroken(summarize(error)) from error


def open_line(rank: int, purpose: str = "") -> Line | None:
    """A line for the next watch of this rank, or the next of another purpose.

    None if the process group has no store to talk through.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    try:
        store = _connect(torch.distributed.distributed_c10d._get_default_store())
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        place = f"unvanish/{restart}" + (f"/{purpose}" if purpose else "")
        return Line(store, f"{place}/{store.add(f'{place}/rank{rank}', 1)}/")
    except Exception:  # whatever this kind of store does not offer
        return None


def _connect(store: Any) -> Any:
    """The same store over a connection of its own."""
    if hasattr(store, "clone"):
        own = store.clone()
    else:
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        tcp: Any = torch.distributed
        own = tcp.TCPStore(store.host, store.port, None, False, PATIENCE)
    own.set_timeout(PATIENCE)
    return own
