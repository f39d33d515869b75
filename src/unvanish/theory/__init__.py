"""Mean-field theory of deep networks: how signals and gradients propagate before any data is seen."""
