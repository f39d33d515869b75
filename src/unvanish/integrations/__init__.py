"""One file for each library that unvanish works with; the library is imported only inside its file."""
