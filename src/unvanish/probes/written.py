"""How a call was written in the user's code: whether an argument is left out, constant, or an attribute.

Notable: of the frame outside torch and the probes, Python knows which part of which lines is being called
(PEP 657); that part alone is parsed. Where the source is not there, nothing is known.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Collection
from functools import cache
from itertools import islice
from types import CodeType, FrameType
from typing import Literal

from unvanish.probes.lines import PROBES, TORCH

Written = Literal["", "left out", "constant", "attribute"]
INSTRUCTION = 2  # bytes


def read_argument(names: Collection[str], argument: str, place: int) -> Written:
    """How an argument, by name and place, of the running call to one of `names` was written; "" if unknown.

    An attribute is a plain one, as in `self.rate`; `self.training`, and any expression, is unknown.
    """
    frame: FrameType | None = sys._getframe(1)
    inner = ""
    while frame is not None and frame.f_code.co_filename.startswith((TORCH, PROBES)):
        inner, frame = frame.f_code.co_name, frame.f_back
    call = None if frame is None else _find_call(frame.f_code, frame.f_lasti)
    if call is None or not {inner, _name(call.func)} & {*names}:
        return ""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return ""
    value = next((k.value for k in call.keywords if k.arg == argument), None)
    if value is None and len(call.args) > place:
        value = call.args[place]
    if value is None:
        return "left out"
    if isinstance(value, ast.Constant):
        return "constant"
    return "attribute" if isinstance(value, ast.Attribute) and value.attr != "training" else ""


@cache
def _find_call(code: CodeType, last: int) -> ast.Call | None:
    first, end, left, right = next(islice(code.co_positions(), last // INSTRUCTION, None), (None,) * 4)
    if first is None or end is None or left is None or right is None:
        return None
    lines = [linecache.getline(code.co_filename, k).encode() for k in range(first, end + 1)]
    lines[-1] = lines[-1][:right]
    lines[0] = lines[0][left:]
    try:
        found = ast.parse(b"(" + b"".join(lines) + b")", mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return found if isinstance(found, ast.Call) else None


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
