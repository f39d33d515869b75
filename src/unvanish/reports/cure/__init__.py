"""Reports of a cure."""
