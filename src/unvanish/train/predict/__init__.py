"""Predictions: reading inputs, answering, drawing and saving the answers."""
