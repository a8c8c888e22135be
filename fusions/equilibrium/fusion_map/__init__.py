"""The fusion process of Ni et al. (2023) as a map, made to be solved for its fixed point."""
