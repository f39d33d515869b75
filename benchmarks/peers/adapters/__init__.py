"""One file a tool: what pip installs, how its documentation uses it, and what its words stand for."""
