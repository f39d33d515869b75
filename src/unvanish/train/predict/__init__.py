"""Predictions: what goes in, what comes out, and the formats they are saved in."""
