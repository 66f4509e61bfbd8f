"""From a trained generator to directions in real units."""
