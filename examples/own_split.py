"""What recipes refuse whose data comes with one split."""

from argparse import Namespace


def check_own_split(args: Namespace, folder: str) -> None:
    """Ends the command unless `--data-dir` is given and `--official` is not.

    Args:
        args: the parsed arguments.
        folder: what the data's folder holds, for the message.
    """
    if args.data_dir is None:
        raise SystemExit(f"--data-dir must name the folder of {folder}")
    if args.official:
        raise SystemExit("the data's own split is the only one: leave out --official")
