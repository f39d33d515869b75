"""The instruments of all cures: every change to a model is recorded and can be undone."""
