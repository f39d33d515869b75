"""The instruments of all cures: every change to a model is noted and can be undone."""
