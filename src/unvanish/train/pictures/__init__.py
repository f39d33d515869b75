"""Pictures of a run: its history, curves, confusion matrices, and examples."""
