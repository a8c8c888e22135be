"""Genres of films: MM-IMDB, and sets in its layout."""
