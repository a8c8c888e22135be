"""Reports of a comparison: sentences, tables, pictures, a page, and lines as runs end."""
