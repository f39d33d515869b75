"""How large a run's folder gets, and how fast it is written: a million steps of 300 sites.

Run it with `python -m benchmarks.store`. Every step has its row, every tenth its look, as a watch of every
tenth step would write them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import record
from unvanish.clinic.watch import LIVE
from unvanish.core.trace import Site
from unvanish.store import Store, open_run


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=300)
    parser.add_argument("--every", type=int, default=10)
    record.add_option(parser)
    options = parser.parse_args()
    values = np.random.default_rng(0).standard_normal((options.sites, len(LIVE)))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, pause=0.01)
        store.sites([Site(f"layers.{i}", "Linear") for i in range(options.sites)], LIVE)
        started, putting = time.perf_counter(), 0.0
        for step in range(options.steps):
            before = time.perf_counter()
            row = {"step": step, "wall": before, "loss": 1.0, "norm_log": 0.0, "finite": 1, "lr": 0.1}
            store.steps([row])
            if step % options.every == 0:
                store.sample(step, values)
            putting += time.perf_counter() - before
            if step % 1000 == 0:
                store.flush()  # a training is slower than this loop; its queue never fills
        store.close()
        seconds = time.perf_counter() - started
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        run = open_run(folder)
        steps, looks = len(run.steps()["step"]), run.sample_steps()
        started = time.perf_counter()
        run.trace(most=120)
        reading = time.perf_counter() - started
    wanted = options.steps // options.every
    print(f"{steps:,} steps, {len(looks):,} of {wanted:,} looks kept, {size / 1e9:.2f} GB")
    print(f"written in {seconds:.0f} s, {1e6 * putting / steps:.0f} us a step in the training's own thread")
    print(f"120 looks read back in {reading:.2f} s; dropped: {store.losses.dropped}")
    figures = {"GB": size / 1e9, "us a step": 1e6 * putting / steps, "written s": seconds, "read s": reading}
    record.append("store", options, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
