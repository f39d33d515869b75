"""A network as data, followed forward and backward by the theory."""
