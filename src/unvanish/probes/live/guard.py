"""The door between a user's program and a watch: what fails behind it does not get out.

Notable:
- Every call from the program into the watch passes `WatchGuard.run`. What fails inside is one warning that
  names the place; then everything that the watch hung up comes off, later calls do nothing, the program goes
  on. KeyboardInterrupt and SystemExit are the program's own and pass.
- Our own operations run without torch function modes and overrides, so those of the program do not see them.
- What hangs in the program is a `WatchEntry`: it knows its owner weakly, so it keeps nothing alive; copies
  and pickles of what it hangs on hold a function of the standard library in its place that does nothing.
"""

from __future__ import annotations

import contextlib
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from unvanish.core.caution import caution, locate

T = TypeVar("T")


class WatchGuard:
    """Runs what a watch does, holds what it hung up (each has a `remove`), takes it off if something fails.

    `passing`: what may come out of it after all. `failure`: where and how it failed, in a line; `traceback`:
    the whole of it; `notes`: what was left out.
    """

    def __init__(self, subject: str, passing: tuple[type[Exception], ...] = ()) -> None:
        self.subject, self.passing = subject, passing
        self.failure = self.traceback = ""
        self.notes: list[str] = []
        self._held: list[Any] = []  # handles
        self._known: list[weakref.ref[Any]] = []  # others that take themselves off, and know us
        self.stepping = 0  # calls from optimizers' step hooks that run now

    def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """What a function of ours gives; None if it failed, or anything did before."""
        return None if self.failure else self.run_anyway(work, *args)

    def run_anyway(self, work: Callable[..., Any], *args: Any) -> Any:
        """As `run`, after a failure too: to clear away, to write what is left."""
        learning = torch.is_grad_enabled()
        try:
            with torch._C.DisableTorchFunction():
                return work(*args)
        except self.passing:
            raise
        except Exception as error:
            self.fail(error)
        finally:
            if (
                torch.is_grad_enabled() is not learning
            ):  # an exception between a block's last line and its end
                torch._C._set_grad_enabled(learning)
        return None

    def fail(self, error: Exception) -> None:
        """Give up: take everything off and say so once."""
        first, self.failure = not self.failure, self.failure or type(error).__name__
        self._take_off()
        if not first:
            return
        with contextlib.suppress(Exception):
            self.failure = locate(error)
            self.note(f"the watch failed inside itself and took itself off: {self.failure}")
            self.traceback = "".join(traceback.format_exception(error))
        caution(
            f"unvanish: {self.subject} failed inside itself ({self.failure}) and took itself off; the "
            "training goes on as it is, unwatched. Please report this; its `.guard.traceback` has the details"
        )

    def take_over(self, other: WatchGuard) -> None:
        """Fail as another guard did, if it did."""
        if other.failure and not self.failure:
            self.failure, self.traceback = other.failure, other.traceback
            self._take_off()

    def _take_off(self) -> None:
        """Take off what can be taken off; what fails once may come off all the same."""
        for _ in range(2):
            with contextlib.suppress(Exception):
                self.let_go()

    def read(self, what: str, look: Callable[[Any], T], given: Any) -> T | None:
        """What a reading that can be done without gives; None, and a note, if it fails."""
        try:
            return look(given)
        except Exception as error:
            self.note(f"{what} was not read: {locate(error)}")
        return None

    def note(self, text: str) -> None:
        """Note, once, what is left out and why."""
        if text not in self.notes:
            self.notes.append(text)

    # -- what hangs in the program

    def hold(self, handle: Any) -> None:
        """Keep the handle of something that hangs in the program."""
        self._held.append(handle)

    def hang(self, register: Callable[..., Any], *what: Any, **how: Any) -> None:
        """Hang an entry up by torch's own function, and keep its handle."""
        self.hold(hook := Hung())
        hook.hang(register, *what, **how)

    def hang_on_step(self, register: Callable[..., Any], entry: Any) -> StepHook:
        """The same, of a hook on an optimizer's step."""
        self.hold(hook := StepHook())
        hook.hang(register, entry)
        return hook

    def hold_weakly(self, handle: Any) -> None:
        """As `hold`, of something that holds this guard."""
        self._known.append(weakref.ref(handle))

    def let_go(self) -> None:
        """Take off everything that hangs in the program; step hooks when their optimizer is through them."""
        failed: Exception | None = None
        later = [h for h in self._held if self.stepping and isinstance(h, StepHook)]
        known = [handle for ref in self._known if (handle := ref()) is not None]
        for handle in [*known, *self._held]:
            if handle not in later:
                try:
                    handle.remove()
                except Exception as error:  # the others come off first
                    failed = failed or error
        if later:
            _sweeper.take(later)
        else:
            _sweeper.leave(self._held)
        if failed is not None:
            raise failed
        self._held = later

    @contextlib.contextmanager
    def stepped(self) -> Iterator[None]:
        """Within the block an optimizer may go through its hooks."""
        self.stepping += 1
        try:
            yield
        finally:
            self.stepping -= 1


class Sweeper:
    """Takes step hooks off when an optimizer has called them all.

    One hook does it for all guards: of two, the first would go while torch still has the second one to call.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._hook: Any = None

    def take(self, handles: list[Any]) -> None:
        """Remove these at the end of the step."""
        self._handles += [handle for handle in handles if handle not in self._handles]
        if self._hook is None:
            self._hook = register_optimizer_step_post_hook(self._sweep)

    def leave(self, handles: list[Any]) -> None:
        """These are off."""
        self._handles = [handle for handle in self._handles if handle not in handles]
        if not self._handles and self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _sweep(self, *_: Any) -> None:
        """An optimizer has called all of its own hooks, and all others but this one."""
        handles, self._handles, self._hook = [*self._handles, self._hook], [], None
        for handle in handles:
            with contextlib.suppress(Exception):
                handle.remove()


_sweeper = Sweeper()


class Hung:
    """A hook of ours in the program. It is held before it hangs, so nothing can fail in between."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def hang(self, register: Callable[..., Any], *what: Any, **how: Any) -> None:
        """Hang it up by torch's own function."""
        self._handles.append(register(*what, **how))

    def replace(self, register: Callable[..., Any], *what: Any) -> None:
        """Another one stands for it."""
        self.hang(register, *what)
        while len(self._handles) > 1:
            self._handles[0].remove()
            del self._handles[0]

    def remove(self) -> None:
        """Take it off; harmless when repeated."""
        for handle in self._handles:
            handle.remove()


class StepHook(Hung):
    """A hook on an optimizer's step, which is not taken off while the optimizer goes through its hooks."""


class WatchEntry:
    """A method of ours in the hands of the program: weak, guarded; a copy or a pickle of it does nothing.

    `first`: arguments that come before the program's own. `always`: after a failure too, to clear away.
    """

    __slots__ = ("__weakref__", "_always", "_first", "_function", "_guard", "_owner")
    __torch_unserializable__ = True  # torch.save does not warn that a tensor's hook is lost

    def __init__(
        self, guard: WatchGuard, method: Callable[..., Any], *first: Any, always: bool = False
    ) -> None:
        bound: Any = method
        self._guard, self._always, self._first = guard, always, first
        self._owner, self._function = weakref.ref(bound.__self__), bound.__func__

    def __call__(self, *args: Any) -> Any:
        owner, guard = self._owner(), self._guard
        if owner is not None and (self._always or not guard.failure):
            guard.run_anyway(self._function, owner, *self._first, *args)
        return None

    def fail(self, error: Exception) -> None:
        """What calls us failed on the way."""
        self._guard.fail(error)

    def __reduce__(self) -> Any:
        """A bound method of the standard library that takes anything and gives None."""
        return getattr, (contextlib.nullcontext(), "__exit__")


class PassingEntry(WatchEntry):
    """An entry in optimizers' step hooks that keeps nothing alive; none of them is taken off meanwhile."""

    __slots__ = ()

    def __call__(self, *args: Any) -> None:
        with self._guard.stepped():
            super().__call__(*args)


class SwiftEntry(WatchEntry):
    """An entry that first asks `swift`, a method known weakly: whether it has done all there is to do.

    Gives True if it has.
    """

    __slots__ = ("_swift", "_swift_owner")

    def __init__(self, guard: WatchGuard, method: Callable[..., Any], swift: Callable[..., bool]) -> None:
        super().__init__(guard, method)
        bound: Any = swift
        self._swift_owner, self._swift = weakref.ref(bound.__self__), bound.__func__

    def __call__(self, *args: Any) -> Any:
        owner, guard = self._swift_owner(), self._guard
        try:
            if owner is None or guard.failure or self._swift(owner, *args):
                return True
        except Exception as error:
            guard.fail(error)
            return True
        return super().__call__(*args)


class StepEntry(WatchEntry):
    """An entry in an optimizer's step hooks, which keep its owner alive; at every step, so it is short.

    While an optimizer goes through its hooks, none of them is taken off. `swift`: is asked first, outside of
    everything else; whether it has done all that there is to do.
    """

    __slots__ = ("_swift", "_work")

    def __init__(
        self, guard: WatchGuard, method: Callable[..., Any], swift: Callable[..., bool] | None = None
    ) -> None:
        super().__init__(guard, method)
        self._work, self._swift = method, swift

    def __call__(self, *args: Any) -> None:
        guard, learning = self._guard, torch.is_grad_enabled()
        guard.stepping += 1
        try:
            if not guard.failure and (self._swift is None or not self._swift(*args)):
                with torch._C.DisableTorchFunction():
                    self._work(*args)
        except guard.passing:
            raise
        except Exception as error:
            guard.fail(error)
        finally:
            guard.stepping -= 1
            if torch.is_grad_enabled() is not learning:
                torch._C._set_grad_enabled(learning)
