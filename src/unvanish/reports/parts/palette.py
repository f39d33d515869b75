"""The palette of the pages as plain colours, for pictures: renderers of SVG know no variables."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from unvanish.reports.parts.page import read_style

STYLE = Path(__file__).with_name("picture.css")
PAIR = re.compile(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)")


@cache
def read_palettes() -> tuple[dict[str, str], dict[str, str]]:
    """Colours by name, light and dark."""
    found = PAIR.findall(read_style())
    return {name: light for name, light, _ in found}, {name: dark for name, _, dark in found}


def write_style(verdict: str) -> str:
    """The style of a picture, light, and dark if the reader prefers it; `verdict`: the name of its colour."""
    css = STYLE.read_text(encoding="utf-8").strip()
    light, dark = (_resolve(css, {**colours, "verdict": colours[verdict]}) for colours in read_palettes())
    rules = "\n".join(line for line in dark.splitlines() if "#" in line)
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{rules}\n}}"


def _resolve(css: str, colours: dict[str, str]) -> str:
    return re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], css)
