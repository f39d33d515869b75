"""Reports of the order-chaos diagram of an activation."""
