"""Recurrent layers and cells: replayed step by step, and found by their calls."""
