"""Pictures on a screen: in a notebook within its cell, else in a window of the system's viewer."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from unvanish.train.errors import TrainError

if TYPE_CHECKING:
    from PIL.Image import Image


def open_on_screen(picture: Image) -> None:
    """Show a picture; TrainError if there is neither a notebook nor a screen."""
    notebook = find_notebook()
    if notebook is not None:
        notebook.display(picture)
        return
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise TrainError("there is no screen here to show a picture on; save=True or .save(PATH) writes it")
    picture.show()


def find_notebook() -> Any:
    """IPython's display module, within a notebook; else None."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    if running is None or type(running).__name__ == "TerminalInteractiveShell":
        return None
    from IPython import display  # type: ignore[import-not-found,unused-ignore]

    return display
