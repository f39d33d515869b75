"""Networks from YAML whose gradient survives: read, build, zoo."""
