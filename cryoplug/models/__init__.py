"""The networks, their checkpoints, and the general model that comes with the package."""
