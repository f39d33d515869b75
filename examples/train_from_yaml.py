"""A network and its data named in YAML: trained under watch, saved, and used. Needs the extra `train`."""

import tempfile
from pathlib import Path

from unvanish import Model

NETWORK = """
task: classify
activation: relu
norm: none
init: critical
layers:
  - {name: stem, module: Conv, out: 16}
  - {name: trunk, module: Conv, repeats: 4, out: 32}
  - {name: head, module: ClassifyHead}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.yaml")
        path.write_text(NETWORK)
        model = Model(path)
        results = model.train(data="digits.yaml", epochs=5, batch=32, lr0=3e-3, project=folder, plots=False)
        print(f"\naccuracy {results.metrics['accuracy']:.1%}; best weights: {Path(results.best).name}")
        print(Model(results.best).val())


if __name__ == "__main__":
    main()
