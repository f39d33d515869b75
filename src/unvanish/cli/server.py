"""The server of `unvanish mcp`: check, cure, forecast, explain, rules and show as tools of an agent.

Notable:
- A tool runs `unvanish` in a process of its own, so code that was edited is read again, and what it prints,
  breaks or never ends harms no one: it ends, with all its children, after the time limit.
- Only FILE.py:callable inside the folder is imported, as the caller names it; a network of the zoo, a YAML,
  a .pt or a run is data. Everything else is refused in a line.
- The answer is the command's JSON document, read from a file of its own, so stdout is the protocol's alone.
  What fills pages (`sites`, `history` ...) is left out unless `details` asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from unvanish.core.names import show as show_name
from unvanish.core.version import __version__

TAIL = 4000  # bytes of what a process wrote to stderr that are read
LETTERS = 1000  # of an error
AT_ONCE = 2  # processes
CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
ZOO = re.compile(r"[\w.-]+\.ya?ml")
LOSS = re.compile(r"[a-z][a-z0-9_]*")
SIZES = re.compile(r"\d{1,7}(,\d{1,7}){0,7}")
LONG: dict[str, Any] = {  # what of a document fills pages, and what stands for it
    "sites": [], "axes": [], "statistics": {}, "ledger": None, "passed": [], "not_applicable": [],
    "skipped": [], "history": {},
}  # fmt: skip
KEPT = ("assumptions", "unmeasured", "not_put_back", "crash")  # of the facts
ABOUT = """Finds where a PyTorch network loses its gradient, names the cause, and proves a cure.
`check` measures one batch of a model; `forecast` needs no data; `cure` finds the smallest change and proves
it by training a copy; `show` reads a run that `unvanish.watch` recorded; `explain` is the page of a code."""


@dataclass(frozen=True)
class Bounds:
    """The folder that files must lie in, and the seconds that a tool may take."""

    root: Path
    seconds: float


class Desk:
    """Runs commands for tools, a few at a time."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._free = asyncio.Semaphore(AT_ONCE)

    async def run(self, *words: str, details: bool = False) -> dict[str, Any]:
        """The JSON document of a command; ToolError in one line if there is none."""
        async with self._free:
            with (
                tempfile.TemporaryDirectory(prefix="unvanish-mcp-") as folder,
                tempfile.TemporaryFile() as errors,
            ):
                file = Path(folder) / "answer.json"
                code = await self._run([*words, "--json", str(file)], errors)
                if code not in (0, 1) or not file.is_file():
                    raise ToolError(_read_error(errors, words[0], code))
                found: dict[str, Any] = json.loads(file.read_text(encoding="ascii"))
        return found if details else shorten(found)

    async def _run(self, words: Sequence[str], errors: IO[bytes]) -> int:
        """Run the command to its end, or to that of its time; its exit code."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "unvanish", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=errors,
            cwd=self.bounds.root, env={**os.environ, "NO_COLOR": "1"}, start_new_session=True,
        )  # fmt: skip
        try:
            return await asyncio.wait_for(process.wait(), self.bounds.seconds)
        except TimeoutError:
            raise ToolError(
                f"{words[0]} was stopped after {self.bounds.seconds:g} s, the time limit of this server;"
                " give a smaller model or batch, or start it with a larger --time-limit"
            ) from None
        finally:
            _end(process)

    # -- what callers may name

    def name_model(self, text: str) -> str:
        """FILE.py:callable inside the folder, a YAML there, or the name of a network of the zoo."""
        if text.endswith((".yaml", ".yml")):
            zoo = ZOO.fullmatch(text) and not (self.bounds.root / text).exists()
            return text if zoo else str(self._find(text, "model"))
        return self._name_callable(text, "model", "FILE.py:callable or NAME.yaml")

    def name_data(self, text: str) -> str:
        """FILE.py:callable or FILE.pt inside the folder."""
        if text.endswith(".pt"):
            return str(self._find(text, "data"))
        return self._name_callable(text, "data", "FILE.py:callable or FILE.pt")

    def name_loss(self, text: str) -> str:
        """The name of a loss, or FILE.py:callable inside the folder."""
        if LOSS.fullmatch(text):
            return text
        return self._name_callable(text, "loss", "a name such as cross_entropy, or FILE.py:callable")

    def name_run(self, text: str) -> str:
        """The folder of a run, inside the folder."""
        path = self._resolve(text, "run")
        if not path.is_dir():
            raise ToolError(f"run: there is no folder {show_name(text)}")
        return str(path)

    def _name_callable(self, text: str, what: str, wanted: str) -> str:
        place, _, name = text.rpartition(":")
        if not place.endswith(".py") or not CALLABLE.fullmatch(name):
            raise ToolError(f"{what} is {show_name(text)[:200]!r}; it is {wanted}")
        return f"{self._find(place, what)}:{name}"

    def _find(self, text: str, what: str) -> Path:
        path = self._resolve(text, what)
        if not path.is_file():
            raise ToolError(f"{what}: there is no file {show_name(text)[:200]}")
        return path

    def _resolve(self, text: str, what: str) -> Path:
        root = self.bounds.root.resolve()
        try:
            path = (root / text).resolve()
        except (OSError, ValueError) as error:
            raise ToolError(f"{what} is no path: {error}") from error
        if not path.is_relative_to(root):
            raise ToolError(f"{what}: {show_name(text)[:200]} is outside of {root}, this server's folder")
        return path


def shorten(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without what fills pages; `left_out` names that, and it fits its schema as before."""
    left = [key for key, stand_in in LONG.items() if key in document and document[key] != stand_in]
    short = {**document, **{key: LONG[key] for key in left}}
    if str(document.get("schema")).startswith("unvanish.diagnosis/"):
        short["facts"] = {key: document["facts"][key] for key in KEPT if key in document["facts"]}
    return {**short, "left_out": left}


def build_server(bounds: Bounds) -> MCPServer:
    """The server with its tools."""
    server: MCPServer = MCPServer("unvanish", instructions=ABOUT, version=__version__, log_level="WARNING")
    desk = Desk(bounds)

    async def check(
        model: str,
        data: str | None = None,
        loss: str | None = None,
        input: list[str] | None = None,
        batch_size: int = 8,
        lr: float | None = None,
        details: bool = False,
    ) -> dict[str, Any]:
        """Measure one batch of a PyTorch model and name where and why it loses its gradient.

        `model`: FILE.py:callable, a function without arguments that returns the module (or the module and a
        batch), or a network of the zoo (resnet20.yaml). `data`: FILE.py:callable that gives a batch (x, y) or
        a loader, or FILE.pt; without it `input`: the shape of one sample for each input, as ["3,224,224"],
        filled with random numbers. `loss`: a name such as cross_entropy, or FILE.py:callable. `lr`: also try
        a step at this learning rate. Returns unvanish.diagnosis/1: findings, worst first, with cause, place
        and remedies. `details` adds every site and the ledger, which is long.
        """
        words = [*_list_subject(desk, model, data, loss, input, batch_size), *_list_rate(lr)]
        return await desk.run("check", *words, details=details)

    async def forecast(model: str, input: list[str], details: bool = False) -> dict[str, Any]:
        """Predict from theory where a model will lose its gradient, before there is data.

        `model`: FILE.py:callable or a network of the zoo. `input`: the shape of one sample for each input, as
        ["3,224,224"]. Returns unvanish.diagnosis/1.
        """
        return await desk.run("forecast", *_list_subject(desk, model, None, None, input, 8), details=details)

    async def cure(
        model: str,
        data: str | None = None,
        loss: str | None = None,
        input: list[str] | None = None,
        batch_size: int = 8,
        seconds: float = 60.0,
        details: bool = False,
    ) -> dict[str, Any]:
        """Find the smallest change that cures a model, and prove it by training a copy beside the original.

        The arguments are those of `check`; give a loss, or there is no proof by training. `seconds`: of the
        search. Nothing is written. Returns unvanish.cured/1: `code` is the change as lines of PyTorch.
        """
        words = _list_subject(desk, model, data, loss, input, batch_size)
        return await desk.run("cure", *words, "--budget", repr(float(seconds)), details=details)

    for tool in (check, forecast, cure):
        server.add_tool(tool)
    _add_readers(server, desk)
    return server


def _add_readers(server: MCPServer, desk: Desk) -> None:
    """The tools that run no code of the caller's."""

    async def explain(name: str) -> dict[str, Any]:
        """The page of a rule or a cure: what it means, when it fires, its limits, what to do instead.

        `name`: a code (ACT002), a rule's or a cure's name, or a symptom in words (loss is nan), whose page
        says where to look. Returns unvanish.page/1.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w' -]{0,120}", name):
            raise ToolError(f"name is {show_name(name)[:200]!r}; it is a code such as ACT002, or words")
        return await desk.run("explain", name, details=True)

    async def rules() -> dict[str, Any]:
        """All rules with what they detect and their settings. Returns unvanish.index/1."""
        return await desk.run("rules", details=True)

    async def show(run: str, details: bool = False) -> dict[str, Any]:
        """What happened in a training that `unvanish.watch(..., run=FOLDER)` recorded, also while it runs.

        `run`: the folder. Returns unvanish.run/1: verdict, findings with their steps, losses. `details` adds
        the numbers of up to 512 steps.
        """
        return await desk.run("show", desk.name_run(run), details=details)

    for tool in (explain, rules, show):
        server.add_tool(tool)


def _list_subject(
    desk: Desk, model: str, data: str | None, loss: str | None, sizes: Sequence[str] | None, batch_size: int
) -> list[str]:
    """Model, batch and loss as words of the command line; ToolError for what may not be named."""
    for size in sizes or ():
        if not SIZES.fullmatch(size):
            raise ToolError(f"input is {show_name(size)[:80]!r}; it is a shape without the batch: 3,224,224")
    return [
        desk.name_model(model),
        *(("--data", desk.name_data(data)) if data is not None else ()),
        *(("--loss", desk.name_loss(loss)) if loss is not None else ()),
        *(word for size in sizes or () for word in ("--input", size)),
        *("--batch-size", str(int(batch_size))),
    ]


def _list_rate(lr: float | None) -> Iterator[str]:
    if lr is not None:
        yield from ("--lr", repr(float(lr)))


def _read_error(errors: IO[bytes], verb: str, code: int) -> str:
    """The last line that a process wrote of itself, without its traceback."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - TAIL))
    lines = errors.read().decode("utf-8", "replace").splitlines()
    own = [line for line in lines if line.startswith("unvanish: ")]
    if own:
        return show_name(own[-1].removeprefix("unvanish: "))[:LETTERS]
    end = f"by signal {-code}" if code < 0 else f"with code {code}"
    return f"{verb} ended {end} and said nothing"


def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode is None:
            process.kill()


def serve(root: Path, seconds: float) -> None:
    """Talk to a client over stdin and stdout until it hangs up."""
    build_server(Bounds(root, seconds)).run("stdio")
