"""DEQ fusion of the four quadrants of a digit: seconds on a CPU, no download.

python -m deq_fusion.examples.digits.digits_deq
"""

from functools import partial

from deq_fusion.examples.digits.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__)

if __name__ == "__main__":
    main()
