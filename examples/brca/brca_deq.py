"""DEQ fusion of multi-omics data in MM-Dynamics: BRCA, ROSMAP, or a set in their layout.

python -m datasets.brca.prepare --data-dir data/BRCA
python -m examples.brca.brca_deq --data-dir data/BRCA
"""

from collections.abc import Sequence

from examples.brca.recipe import recipe
from examples.run_one import run_one


def main(argv: Sequence[str] | None = None) -> dict:
    """Trains, prints the test scores, and returns the result."""
    return run_one(recipe, description=__doc__, argv=argv, needs_data=True)


if __name__ == "__main__":
    main()
