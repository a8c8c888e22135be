"""The command `deq-fusion`, as `python -m deq_fusion`."""

from deq_fusion.command import main

if __name__ == "__main__":
    main()
