"""Reports of a watch while it watches."""
