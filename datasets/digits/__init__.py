"""Handwritten digits in four quadrants: the embedded default, no download."""
