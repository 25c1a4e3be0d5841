"""Sum the frames of a movie to the two halves of its exposure."""
