"""What a run writes, whole or not at all, and how it is read again."""
