"""Fuzzes the readers: `python -m unit_tests.fuzz --number 20000`, see `--help`."""

import argparse
import gc
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"  # before what reads them: forks are of a process without threads
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tqdm import tqdm  # noqa: E402

from .harness import FINDINGS, VERDICTS, Verdict, examine_all  # noqa: E402
from .judge import Fuzzed, write_files  # noqa: E402

FLIPPED = ("checkpoint", "results store", "zip", "tar.gz")
"""Formats of which every damage must be noticed, or change nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if there are findings."""
    args = _make_parser().parse_args(argv)
    import torch  # only now, as all that reads the formats: --help is to be quick

    torch.set_num_threads(1)
    from .all_formats import FORMATS

    names = args.only or (FLIPPED if args.flips else list(FORMATS))
    if unknown := set(names) - set(FORMATS):
        raise SystemExit(f"no format {sorted(unknown)}; choose from {list(FORMATS)}")
    each = args.flips or -(-args.number // len(names))
    options = {"seed": args.seed, "flips": bool(args.flips)}
    fuzzed = [Fuzzed(FORMATS[name], **options) for name in names]
    gc.freeze()  # what is warm stays shared with the children
    table, findings = {}, []
    with tqdm(total=each * len(names), unit=" files", disable=args.quiet or None) as bar:
        for one in fuzzed:
            bar.set_description(one.shape.name)
            table[one.shape.name] = counts = Counter()
            for verdict in examine_all(one.examine, range(args.start, args.start + each)):
                counts[verdict.kind] += 1
                bar.update()
                if verdict.kind in FINDINGS:
                    _, name, how = one.mutated(verdict.index)  # a child that died did not say
                    verdict = replace(verdict, mutation=f"{name}: {how}")
                    findings.append({"format": one.shape.name, **vars(verdict)})
                    _keep(args.keep, one, verdict)
    _print(table, findings, args)
    return 1 if findings else 0


def _keep(folder: Path | None, one: Fuzzed, verdict: Verdict) -> None:
    if folder is None:
        return
    files, name, how = one.mutated(verdict.index)
    here = folder / f"{one.shape.name} {verdict.index}".replace(" ", "-")
    write_files(here, files)
    text = f"{verdict.kind}\n{name}: {how}\n{verdict.detail}\n"
    (here / "finding.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def _print(table: dict[str, Counter], findings: list[dict], args: argparse.Namespace) -> None:
    seconds = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    if args.json:
        sys.stdout.write(json.dumps({"table": table, "findings": findings, "seconds": seconds}))
        return
    width = max(map(len, table))
    lines = [" ".join([" " * width, *(f"{kind:>17}" for kind in VERDICTS)])]
    table = {**table, "all": sum(table.values(), Counter())}
    for name, counts in table.items():
        lines.append(" ".join([f"{name:{width}}", *(f"{counts[kind]:17,}" for kind in VERDICTS)]))
    for found in findings[: args.show]:
        lines.append(f"\n{found['format']} {found['index']}: {found['kind']}, {found['mutation']}")
        lines.append(found["detail"][-2000:])
    lines.append(
        f"\n{len(findings)} findings in {sum(table['all'].values()):,} files, {seconds:.1f} s"
    )
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unit_tests.fuzz",
        description="Damages tiny files of all formats, reads them, and counts how that ends: "
        "read as an independent reader does, refused by an error of ours that names the file, or a "
        "finding. Exit status 1 if there are findings.",
    )
    parser.add_argument("--number", type=int, default=2000, help="files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds damage otherwise")
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first file, each format"
    )
    parser.add_argument(
        "--only", action="append", metavar="FORMAT", help="this format; may be given several times"
    )
    parser.add_argument(
        "--flips",
        type=int,
        metavar="N",
        help=f"flip one bit, in N files of each of {', '.join(FLIPPED)}: all must be noticed, or "
        "read to the same contents",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for the files of findings")
    parser.add_argument("--show", type=int, default=20, help="findings that are shown in full")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quiet", action="store_true", help="show no bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
