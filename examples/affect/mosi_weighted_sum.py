"""The weighted sum, CM-BERT's own fusion (Yang et al., 2020), of CMU-MOSI's modalities.

python -m deq_fusion.examples.affect.mosi_weighted_sum --data-dir data/mosi --modalities text audio
"""

from functools import partial

from deq_fusion.examples.affect.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, fusion="weighted_sum", needs_data=True)

if __name__ == "__main__":
    main()
