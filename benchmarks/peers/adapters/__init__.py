"""One file a tool: what pip installs, how its documentation says that it is used, and what its words stand for."""
