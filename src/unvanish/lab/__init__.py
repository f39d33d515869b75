"""Networks from YAML, their tasks, and data."""
