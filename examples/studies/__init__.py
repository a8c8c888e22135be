"""Studies of DEQ fusion. Each has rows, a measure, a summary in tables, and pictures of it."""
