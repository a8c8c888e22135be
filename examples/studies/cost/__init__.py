"""What deep equilibrium fusion costs, measured against what else one could run."""
