"""The paper's tables row by row, with what this project has in place of each row."""
