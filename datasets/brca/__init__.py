"""BRCA, and ROSMAP in the same file layout: patients described by several omics."""
