"""Benchmarks: a recipe and short scripts for each, and the comparison of all fusions."""
