"""A film's plot and its poster, each on its own: MM-IMDB.

python -m deq_fusion.examples.imdb.imdb_unimodal --data-dir data/imdb
"""

from functools import partial

from deq_fusion.examples.imdb.recipe import recipe
from deq_fusion.examples.run_one import run_unimodal

main = partial(run_unimodal, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
