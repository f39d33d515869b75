"""What several reports share: words, markup, figures, folding."""
