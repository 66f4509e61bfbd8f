"""One HTML page about a whole experiment, and the picture at the top of the README."""
