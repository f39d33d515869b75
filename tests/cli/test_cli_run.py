"""`unvanish run`: a script runs as it would, and what its trainings did is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from unvanish.store import open_run

SCRIPT = """
import sys
import torch
from torch import nn

assert __name__ == "__main__" and sys.path[0] == {folder!r}

def main():
    torch.manual_seed(0)
    made, other = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), nn.Linear(8, 1)
    optimizer = torch.optim.Adam(made[2].parameters(), 1e-3)
    second = torch.optim.SGD(other.parameters(), 1e-3)
    for _ in range(6):
        x, y = torch.randn(16, 8), torch.randint(0, 3, (16,))
        optimizer.zero_grad()
        second.zero_grad()
        loss = nn.functional.cross_entropy(made(x), y)
        loss.backward()
        nn.functional.mse_loss(other(x), x[:, :1]).backward()
        optimizer.step()
        second.step()
    print("loss", loss.item(), sys.argv[1:])

main()
{end}
"""


def run(folder: Path, end: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    script = folder / "train.py"
    script.write_text(SCRIPT.format(folder=str(folder), end=end))
    called = [sys.executable, "-m", "unvanish", "run", *options, str(script), *arguments]
    alone = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    done = subprocess.run(called, capture_output=True, text=True)
    assert done.returncode == alone.returncode
    assert done.stdout.splitlines()[0] == alone.stdout.splitlines()[0]
    return done.returncode, done.stdout, done.stderr


def test_a_script_runs_as_it_would_and_is_watched(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    code, out, err = run(tmp_path, "sys.exit(3)", "--run", "x", "--epochs", "2", options=("--run", str(kept)))
    assert code == 3 and "['--run', 'x', '--epochs', '2']" in out
    assert "OPT004" in out and "found 1: OPT004" in out and "error[OPT004]" in err
    assert "found 0" in out or "nothing wrong was seen" in out  # of the other model
    assert len(open_run(kept).steps()["step"]) == 6


def test_an_exception_of_the_script_is_its_own(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "raise ValueError('mine')")
    assert code == 1 and "ValueError: mine" in err and "OPT004" in out
    assert "runpy" not in err and "unvanish/cli" not in err
    missing = [sys.executable, "-m", "unvanish", "run", str(tmp_path / "none.py")]
    done = subprocess.run(missing, capture_output=True, text=True)
    assert done.returncode == 2 and "there is no script" in done.stderr


def test_weights_are_no_script(tmp_path: Path) -> None:
    weights = tmp_path / "state.pt"
    with ZipFile(weights, "w") as file:
        file.writestr("state/data.pkl", b"")
    call = [sys.executable, "-m", "unvanish", "run", str(weights)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no Python script" in done.stderr and "Traceback" not in done.stderr
