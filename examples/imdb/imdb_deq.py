"""DEQ fusion of a film's plot and poster: MM-IMDB, or a set in its layout.

python -m datasets.imdb.prepare --data-dir data/imdb
python -m examples.imdb.imdb_deq --data-dir data/imdb
"""

from functools import partial

from examples.imdb.recipe import recipe
from examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
