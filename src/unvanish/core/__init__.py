"""The nouns, and what is read off them: no rendering, no writing, no torch."""
