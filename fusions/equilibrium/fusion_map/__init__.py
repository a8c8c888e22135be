"""The map of deep equilibrium fusion (Ni et al., 2023): its cells, and the system they make."""

from .gated import GatedCell as GatedCell
from .residual import ResidualCells as ResidualCells
from .system import TriangularSystem as TriangularSystem
