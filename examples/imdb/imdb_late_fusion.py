"""MultiBench's late fusion on MM-IMDB: encoded features, concatenated (`concat` among the fusions).

python -m deq_fusion.examples.imdb.imdb_late_fusion --data-dir data/imdb
"""

from functools import partial

from deq_fusion.examples.imdb.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, fusion="concat", needs_data=True)

if __name__ == "__main__":
    main()
