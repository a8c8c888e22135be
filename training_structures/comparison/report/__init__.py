"""What a comparison tells: sentences, tables, pictures, a page, and lines as runs end."""
