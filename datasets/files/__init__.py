"""What reads and writes files, for all benchmarks: bounded, checked, and running nothing."""
