"""One file for each foreign library; only that file imports the library.

A file may import the library whose name it bears, and those that its `LIBRARIES` name.
"""
