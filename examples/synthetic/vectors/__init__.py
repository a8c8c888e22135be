"""Synthetic vectors of known structure: redundant, unique, additive, synergistic, gated, steep."""
