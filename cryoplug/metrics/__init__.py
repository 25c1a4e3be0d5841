"""How good an image is: judged by its truth, by the halves of its exposure, and compared with simple filters."""
