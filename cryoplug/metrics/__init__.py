"""How good an image is: by its truth, by the halves of its exposure, and beside simple filters."""
