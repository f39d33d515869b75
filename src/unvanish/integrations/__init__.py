"""One file for each foreign library; only that file imports the library."""
