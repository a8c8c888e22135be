"""MM-IMDB: genres of films from their plot and their poster."""
