"""Synthetic sequences, whose best possible score is known."""
