"""The map of deep equilibrium fusion (Ni et al., 2023): its cells, and the system they make."""
