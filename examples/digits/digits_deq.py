"""DEQ fusion of the four quadrants of a digit: seconds on a CPU, no download.

python -m examples.digits.digits_deq
"""

from functools import partial

from examples.digits.recipe import recipe
from examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__)

if __name__ == "__main__":
    main()
