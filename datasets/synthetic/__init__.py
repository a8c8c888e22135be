"""Synthetic sets, whose best possible score is known."""
