"""Make docs/report.png and docs/cure.svg: `check --html` and `cure --svg` of the sick model of ACT002.

Run it with `python docs/picture.py`; it needs `chromium` (or google-chrome) on the path, and Pillow. Look at
the result: the page is cut at a fixed height.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import unvanish
from unvanish.rules import rule

PICTURE = Path(__file__).with_name("report.png")
DRAWING = Path(__file__).with_name("cure.svg")
WIDTH, HEIGHT, SCALE = 1040, 1994, 1.5  # down to the end of "Along the depth"


def main() -> None:
    """Check the model, and take the page as a picture."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no chromium on the path; on Debian: apt-get install chromium")
    case = rule("ACT002").case("sick")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "report.html"), Path(folder, "shot.png")
        unvanish.check(case.model, case.batch, case.loss)  # the first one also loads the rules
        unvanish.check(case.model, case.batch, case.loss).save(page)
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--force-device-scale-factor={SCALE}"]
        command = [browser, *flags, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(64).save(PICTURE, optimize=True)
    made = unvanish.cure(case.model, case.batch, case.loss, name="net.py:build").save(DRAWING)
    print(f"wrote {made} ({made.stat().st_size // 1024} kB)")
    print(f"wrote {PICTURE} ({PICTURE.stat().st_size // 1024} kB)")


if __name__ == "__main__":
    main()
