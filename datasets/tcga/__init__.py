"""TCGA BRCA, KIPAN and LGG: patients described by three omics and a clinical table."""
