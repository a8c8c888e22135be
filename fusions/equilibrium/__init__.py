"""Fixed points of maps: solvers, the implicit gradient, the Jacobian penalty."""

from .implicit import implicit_fixed_point as implicit_fixed_point
from .jacobian import jacobian_penalty as jacobian_penalty
from .jacobian import spectral_radius as spectral_radius
from .maps import AutogradMap as AutogradMap
from .record import SolveRecord as SolveRecord
from .record import SolveStats as SolveStats
from .rules import SOLVERS as SOLVERS
from .rules import Anderson as Anderson
from .rules import Broyden as Broyden
from .rules import Picard as Picard
from .settings import ConvergenceWarning as ConvergenceWarning
from .settings import Equilibrium as Equilibrium
from .solve import Solution as Solution
from .solve import find_fixed_point as find_fixed_point
