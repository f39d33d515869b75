"""Networks from YAML, the tasks they are trained on, and data."""
