"""A checkpoint applied to micrographs in bounded memory, on three roads: in bands, as a whole, by halves."""
