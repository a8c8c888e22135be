"""MM-Dynamics with its own fusion, concatenation (Han et al., 2022): BRCA, or ROSMAP.

python -m deq_fusion.examples.brca.brca_concat --data-dir data/brca
"""

from functools import partial

from deq_fusion.examples.brca.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, fusion="concat", needs_data=True)

if __name__ == "__main__":
    main()
