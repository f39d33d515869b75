"""What is drawn of a run: its history, curves, matrices, and examples."""
