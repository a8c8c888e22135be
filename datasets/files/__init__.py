"""Readers and writers of files, for all benchmarks: bounded, checked, and running nothing."""
