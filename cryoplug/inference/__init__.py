"""Apply a checkpoint to micrographs in bounded memory, on one of three roads: in bands, as a whole, by halves."""
