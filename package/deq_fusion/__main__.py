"""The command `deq-fusion`, also as `python -m deq_fusion`."""

import sys

from deq_fusion.examples import compare_fusions


def main() -> None:
    """Runs what the arguments ask for."""
    compare_fusions.main(sys.argv[2:])


if __name__ == "__main__":
    main()
