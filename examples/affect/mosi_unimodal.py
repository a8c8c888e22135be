"""Each modality of CMU-MOSI on its own.

python -m deq_fusion.examples.affect.mosi_unimodal --data-dir data/mosi
"""

from functools import partial

from deq_fusion.examples.affect.recipe import recipe
from deq_fusion.examples.run_one import run_unimodal

main = partial(run_unimodal, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
