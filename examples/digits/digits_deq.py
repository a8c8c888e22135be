"""DEQ fusion of the four quadrants of a digit: seconds on a CPU, no download.

python -m examples.digits.digits_deq
"""

from collections.abc import Sequence

from examples.digits.recipe import recipe
from examples.run_one import run_one


def main(argv: Sequence[str] | None = None) -> dict:
    """Trains, prints the test scores, and returns the result."""
    return run_one(recipe, description=__doc__, argv=argv)


if __name__ == "__main__":
    main()
