"""Fixed points of a map: solvers, the implicit gradient, the Jacobian penalty, cells."""

from .cells import GatedCell as GatedCell
from .cells import ResidualCells as ResidualCells
from .equilibrium import Equilibrium as Equilibrium
from .implicit import implicit_fixed_point as implicit_fixed_point
from .jacobian import jacobian_penalty as jacobian_penalty
from .jacobian import spectral_radius as spectral_radius
from .record import SolveRecord as SolveRecord
from .record import SolveStats as SolveStats
from .rules import SOLVERS as SOLVERS
from .rules import Anderson as Anderson
from .rules import Broyden as Broyden
from .rules import Picard as Picard
from .solvers import ConvergenceWarning as ConvergenceWarning
from .solvers import Solution as Solution
from .solvers import find_fixed_point as find_fixed_point
