"""The parts of the training loop, below the Trainer that runs them."""
