"""The systems and floors of TCGA's cohorts, for their recipe and for `deq-fusion list`: BRCA's."""

from deq_fusion.examples.brca.systems import FLOORS, systems

__all__ = ["FLOORS", "systems"]
