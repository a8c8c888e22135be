"""Encoders and heads for Gentle Push, in which a robot pushes an object about a table."""
