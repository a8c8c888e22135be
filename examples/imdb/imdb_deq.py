"""DEQ fusion of a film's plot and poster: MM-IMDB, or a set in its layout.

deq-fusion prepare imdb --data-dir data/imdb
python -m deq_fusion.examples.imdb.imdb_deq --data-dir data/imdb
"""

from functools import partial

from deq_fusion.examples.imdb.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
