"""The embedded default: handwritten digits, a modality for each quadrant of the image."""
