"""`python -m unvanish` is the command `unvanish`.

Notable: Python puts the current folder first on its path here; it is taken off, so that no file in a folder
of data is taken for a library. References such as `net.py:build` find their files by themselves.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd():
        del sys.path[0]
    from unvanish.cli import main

    main()
