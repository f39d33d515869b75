"""A forward written down as a program for the theory."""
