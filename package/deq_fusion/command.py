"""The command `deq-fusion`: each of its parts is imported only when it is asked for."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from deq_fusion import __version__

PARTS: Mapping[str, tuple[str, str]] = {  # name -> where its main(argv) is, what it does
    "compare": (
        "deq_fusion.command:compare",
        "fusions head to head, on a benchmark (--dataset) or on tables of your own (--table)",
    ),
    "list": (
        "deq_fusion.examples.compare_fusions:main_list",
        "fusions, systems, floors: sources, what they take, cost",
    ),
    "prepare": ("deq_fusion.command:prepare", "get and check the data of a benchmark"),
    "predict": ("deq_fusion.model_commands:predict", "new rows by a saved model"),
    "export": ("deq_fusion.model_commands:export", "a saved model as torch.export or ONNX program"),
}
PREPARED: Mapping[str, tuple[str, str]] = {  # benchmark -> its folder, what it is
    "brca": ("brca", "BRCA or ROSMAP: multi-omics, 55 MB"),
    "imdb": ("imdb", "MM-IMDB: posters and plots, 8 GB"),
    "mosi": ("affect", "CMU-MOSI: says which files are needed, and checks them"),
    "tcga": ("tcga", "TCGA BRCA, KIPAN and LGG: multi-omics and clinical tables, 18 MB"),
    "vqa": ("vqa", "VQA-v2: questions and answers"),
}
EPILOG = """\
deq-fusion PART --help tells the options of each. The first thing to try, which needs no data:
  deq-fusion compare --dataset digits --fusions deq,concat --runs 3
One fusion alone, and studies of DEQ fusion, are modules: python -m deq_fusion.examples.brca.train,
python -m deq_fusion.examples.studies.ablation, ... (--help says what they do)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the part that the arguments name.

    Raises:
        SystemExit: as the part does; with status 2 for arguments that make no sense.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    about = {name: says for name, (_, says) in PARTS.items()}
    parser = _parser("deq-fusion", "PART", about, EPILOG)
    parser.add_argument("--version", action="version", version=f"deq-fusion {__version__}")
    part = parser.parse_args(argv[:1]).name
    sys.path.append(os.getcwd())  # fusions and recipes of one's own, as `python -m` finds them
    try:
        _load(PARTS[part][0])(argv[1:])
    except KeyboardInterrupt:  # where nothing had begun that could go on
        sys.exit(128 + signal.SIGINT)


def compare(argv: Sequence[str]) -> None:
    """Compares fusions on a benchmark, or on tables of one's own; one help tells of both."""
    if {"-h", "--help"} & {*argv}:
        parser = _load("deq_fusion.examples.compare_fusions:parser")()
        group = parser.add_argument_group(
            "tables of your own, in place of a dataset",
            f"of these --set takes {_load('deq_fusion.own_data.arguments:SET')}",
        )
        _load("deq_fusion.own_data.arguments:add_data")(group)
        parser.parse_args(argv)
    own = any(word.partition("=")[0] == "--table" for word in argv)
    where = "own_data.command" if own else "examples.compare_fusions"
    _load(f"deq_fusion.{where}:main")(argv)


def prepare(argv: Sequence[str]) -> None:
    """Gets and checks the data of the benchmark that the first argument names."""
    about = {name: says for name, (_, says) in PREPARED.items()}
    epilog = "deq-fusion prepare BENCHMARK --help tells the options of each."
    parser = _parser("deq-fusion prepare", "BENCHMARK", about, epilog)
    name = parser.parse_args(list(argv[:1])).name
    _load(f"deq_fusion.datasets.{PREPARED[name][0]}.prepare:main")(argv[1:])


def _parser(
    program: str, what: str, about: Mapping[str, str], epilog: str
) -> argparse.ArgumentParser:
    width = max(map(len, about))
    lines = "\n".join(f"  {name:{width}}  {says}" for name, says in about.items())
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} {what} [options]",
        description=lines,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=about, metavar=what, help="one of these")
    return parser


def _load(where: str):
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
