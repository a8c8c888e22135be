"""Multi-omics classification: BRCA, ROSMAP, and other sets in their layout."""
