"""Training: a store is streamed through a network, and the best checkpoint is kept."""
