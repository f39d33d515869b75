"""One rule a file: its docstring is its page, the keyword arguments of `check` are its settings."""
