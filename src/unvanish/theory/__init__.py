"""Mean-field theory of deep networks: what a signal and a gradient do before any data is seen."""
