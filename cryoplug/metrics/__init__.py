"""How good an image is, with a truth beside it."""
