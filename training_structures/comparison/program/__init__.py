"""The program around a comparison: its arguments, and how it behaves on a terminal."""
