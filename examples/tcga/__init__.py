"""TCGA BRCA, KIPAN and LGG: three omics, and clinical data if wanted, in MM-Dynamics."""
