"""The cost of deep equilibrium fusion, beside that of the alternatives."""
