"""Reports of a run: verdict, results, the gradient by stage, the network's summary."""
