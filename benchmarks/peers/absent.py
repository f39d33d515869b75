"""What was looked for and is not asked: no package, one that cannot be used here, or one that claims nothing.

Notable: `TRIED` is tried at every run, since a release can change it; `UNASKED` is a decision and its reason.
"""

from __future__ import annotations

TRIED: dict[str, tuple[str, str]] = {  # title: what pip installs, what is imported
    "torcheck": ("torcheck==1.0.1", "torcheck"),
    "GradScope": ("gradscope==0.1.0", "gradscope"),
    "opguard": ("opguard==0.1.0", "opguard"),
}
UNASKED: dict[str, str] = {
    "DEFault, DEFault++": "no package: a web tool that reads and trains Keras models on TensorFlow",
    "SageMaker Debugger (smdebug 1.0.34)": "installs, but its rules run in a cloud service; they stand in"
    " `benchmarks/published.py`",
    "TraceML (traceml-ai 0.5.0)": "installs; it diagnoses slow steps, and claims nothing of gradients",
    "delve 0.1.50": "installs; it logs the rank of layers, and claims nothing",
    "nndiagnostics 0.1.9": "installs; it dumps statistics, and logs modules with a NaN",
    "graphyco 0.1.2": "its monitor imports scipy and PySide6, which it does not require: it needs a desktop",
    "gradienthound 0.1.0, gradviz, torch-module-monitor": "install; they draw or log, and claim nothing",
    "TensorBoard histograms": "they are pictures, and claim nothing",
    "arc-training 5.2.0": "installs; it takes over the training, to roll back and resume it",
    "silver-diagnostics, losslint, runmedic": "judge a table of losses after the run, not a network",
}
