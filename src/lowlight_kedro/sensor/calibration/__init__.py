"""Measure a camera's noise: from flats and darks, from pairs of exposures, from one image, from a file's tag."""
