"""Benchmarks: one command each, a table out. They judge unvanish from outside and share no code with it."""
