"""Handwritten digits from the four quadrants of the image: seconds on a CPU, no download.

python -m deq_fusion.examples.digits.train                            # DEQ fusion
python -m deq_fusion.examples.digits.train --fusion concat
python -m deq_fusion.examples.digits.train --own-fusion my_module:MyFusion
python -m deq_fusion.examples.digits.train --unimodal
"""

from functools import partial

from deq_fusion.examples.digits.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__)

if __name__ == "__main__":
    main()
