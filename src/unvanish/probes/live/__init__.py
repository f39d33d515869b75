"""The eyes of a watched training: one step measured, one block of numbers out."""
