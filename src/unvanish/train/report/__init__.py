"""What a run says at its end: verdict, results, the gradient by stage, the network's summary."""
