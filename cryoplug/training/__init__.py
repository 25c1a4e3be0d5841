"""Training: stream a store through a network, and keep the best checkpoint."""
