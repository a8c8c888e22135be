"""DEQ fusion as a series of patches for MultiBench, and the text of a pull request.

python -m deq_fusion.examples.upstream --multibench ../MultiBench --output results/upstream

The checkout of MultiBench gets a branch on top of the commit that is checked out. The same commits
are written as patches, which `git am` applies, beside `pull_request.md`. Their author is whom git's
settings name there, their date that of the commit below them, so that the same files give the same
commits. Neither the checkout's files nor its index are touched.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deq_fusion import __version__
from deq_fusion.examples.studies.pages import ROOT, Figures, render
from deq_fusion.examples.studies.published_tables import read_all

OWN = ROOT / "upstream"  # what MultiBench gets and this project does not use, laid out as it is
TEXT = "pull_request.md"
LANDMARKS = "fusions/common_fusions.py", "training_structures/Supervised_Learning.py", "README.md"
ROW = re.compile(r"^(\d+\. Fusion paradigms: .+?)(, etc\b.*)$", re.MULTILINE)
NAME = "Deep Equilibrium Fusion"
PLAIN = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}  # asking for changes rewrites no index
ELSEWHERE = "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"


@dataclass(frozen=True)
class Commit:
    """A commit that adds files.

    Attributes:
        message: its subject, a blank line, and the rest.
        files: path in MultiBench -> its content.
    """

    message: str
    files: Mapping[str, bytes]


def main(argv: Sequence[str] | None = None) -> None:
    """Writes branch, patches and text; what is refused is one line, and status 1."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m deq_fusion.examples.upstream", description=__doc__, formatter_class=raw
    )
    parser.add_argument("--multibench", required=True, type=Path, help="checkout of MultiBench")
    parser.add_argument("--output", required=True, type=Path, help="folder for patches and text")
    parser.add_argument("--branch", default="deq-fusion", help="its name (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        paths = write_series(args.multibench, args.output, branch=args.branch)
    except (ValueError, OSError, KeyError) as error:
        sys.exit(f"upstream: {error.args[0] if isinstance(error, KeyError) else error}")
    print(f"branch {args.branch} in {args.multibench}", *paths, sep="\n")


def write_series(checkout: Path, output: Path, *, branch: str = "deq-fusion") -> list[Path]:
    """Makes the branch, and writes its commits as patches and the text of the pull request.

    Args:
        checkout: of MultiBench; the branch starts at the commit that is checked out there.
        output: folder of the files, which is made where there is none.
        branch: its name.

    Returns:
        The patches in order, then the text.

    Raises:
        ValueError: if the checkout is none of MultiBench's or has uncommitted changes, if it has
            the branch or a file of the series already, or the output has patches.
        FileNotFoundError: where git, or this project's own checkout, is not at hand.
    """
    _check_checkout(checkout)
    _git(checkout, "check-ref-format", "--branch", branch)
    if _git(checkout, "branch", "--list", branch):
        raise ValueError(
            f"{checkout} must not have a branch {branch} yet; name another by --branch, or delete "
            f"it: git -C {checkout} branch -D {branch}"
        )
    old = sorted(output.glob("*.patch"))
    if old:
        raise ValueError(f"{output} must hold no patches yet, got {old[0].name}; remove them")
    text = render(OWN / TEXT, Figures(read_all()), width=None)  # a line there is one on GitHub
    base = _git(checkout, "rev-parse", "HEAD")
    tip = _commit_all(checkout, base, series(_readme(checkout)))
    output.mkdir(parents=True, exist_ok=True)
    plain = ["--src-prefix=a/", "--dst-prefix=b/", "--full-index", "--no-cover-letter"]
    plain += ["--no-signature", "--numbered"]  # whatever the settings of git
    made = _git(checkout, "format-patch", *plain, "-o", str(output.resolve()), f"{base}..{tip}")
    (output / TEXT).write_text(text, encoding="utf-8")
    _git(checkout, "branch", "--no-track", branch, tip)  # last: all or nothing
    return [*map(Path, made.splitlines()), output / TEXT]


def series(readme: str) -> list[Commit]:
    """Returns the commits, in order.

    Args:
        readme: text of MultiBench's README.md.

    Raises:
        ValueError: if the README has no list of fusions to add to.
        FileNotFoundError: outside of a checkout of this project.
    """
    if not OWN.is_dir():
        raise FileNotFoundError(
            f"there is no {OWN}: it is in a checkout of the project, not in an installation"
        )
    (owner,) = re.findall("^Copyright .+$", (ROOT / "LICENSE").read_text("utf-8"), re.MULTILINE)
    source = f"From deq-fusion {__version__}, unchanged (MIT License, {owner})."
    fusion = [ROOT / "fusions/deq.py", *sorted((ROOT / "fusions/equilibrium").rglob("*.py"))]
    objective = [ROOT / "objective_functions/auxiliary_loss.py"]
    new, found = ROW.subn(rf"\1, {NAME}\2", readme)
    if found != 1:
        raise ValueError(
            "MultiBench's README.md must have one line `N. Fusion paradigms: ..., etc`, to which "
            f"the fusion is added, got {found}"
        )
    return [
        Commit(f"Add deep equilibrium fusion\n\n{FUSION}\n\n{source}\n", _read(ROOT, fusion)),
        Commit(
            f"Add an objective for auxiliary losses\n\n{OBJECTIVE}\n\n{source}\n",
            _read(ROOT, objective),
        ),
        Commit(
            f"Add examples of deep equilibrium fusion\n\n{EXAMPLES}\n",
            _read(OWN, sorted((OWN / "examples").rglob("*.py"))),
        ),
        Commit(
            f"Add tests of deep equilibrium fusion\n\n{TESTS}\n",
            _read(OWN, sorted((OWN / "tests").rglob("*.py"))),
        ),
        Commit(
            "Name deep equilibrium fusion in the README\n",
            {"README.md": new.encode()},
        ),
    ]


FUSION = """\
DEQFusion drives the features of all modalities and the fused feature to a
joint equilibrium, and differentiates it implicitly (Ni et al., Deep
Equilibrium Multimodal Fusion, arXiv:2306.16645). fusions/equilibrium solves
for fixed points of any map. Both need torch alone."""
OBJECTIVE = """\
WithAuxiliaryLoss wraps an objective and adds what modules keep as
auxiliary_loss, such as the Jacobian penalty of DEQFusion. It works with
train as it is, by objective_args_dict."""
EXAMPLES = """\
MM-IMDb (text and image) and CMU-MOSI (vision, audio and text), with the
encoders of the late fusion examples. They run with and without a GPU."""
TESTS = """\
Shapes, parameters, the equilibrium and its gradient against many steps and
backpropagation, absent modalities, the objective, and train."""


def _read(root: Path, paths: Sequence[Path]) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _check_checkout(checkout: Path) -> None:
    """Raises ValueError for what is no checkout of MultiBench, or one with changes."""
    try:
        top = Path(_git(checkout, "rev-parse", "--show-toplevel"))
    except ValueError:
        top = None
    if top is None or top.resolve() != checkout.resolve():
        raise ValueError(f"{checkout} must be the top folder of a git checkout, but is not")
    known = _git(checkout, "ls-tree", "--name-only", "HEAD", *LANDMARKS).splitlines()
    missing = [name for name in LANDMARKS if name not in known]
    if missing:
        raise ValueError(f"{checkout} must be a checkout of MultiBench, but lacks {missing[0]}")
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        raise ValueError(
            f"{checkout} must have no uncommitted changes, which the branch would lack, got "
            f"{len(changed)} ({changed[0].strip()}); commit or stash them"
        )


def _readme(checkout: Path) -> str:
    """Returns MultiBench's README.md as it was committed, with its ends of lines."""
    return _run(checkout, ["show", "HEAD:README.md"]).decode()


def _commit_all(checkout: Path, base: str, commits: Sequence[Commit]) -> str:
    """Returns the last of the commits, made on top of each other from an index of their own."""
    date = _git(checkout, "show", "--no-patch", "--format=%cI", base)
    there = set(_git(checkout, "ls-tree", "-r", "--name-only", base).splitlines())
    clash = [f for commit in commits for f in commit.files if f in there and f != "README.md"]
    if clash:
        raise ValueError(f"{checkout} must not have {clash[0]} yet, but has")
    with tempfile.TemporaryDirectory() as folder:
        own = {"GIT_INDEX_FILE": f"{folder}/index"}
        own |= {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        _git(checkout, "read-tree", base, env=own)
        for commit in commits:
            for path, content in commit.files.items():
                blob = _git(checkout, "hash-object", "-w", "--stdin", given=content)
                entry = f"100644,{blob},{path}"
                _git(checkout, "update-index", "--add", "--cacheinfo", entry, env=own)
            tree = _git(checkout, "write-tree", "--missing-ok", env=own)  # as in partial clones
            message = commit.message.encode()
            base = _git(checkout, "commit-tree", tree, "-p", base, env=own, given=message)
    return base


def _git(
    checkout: Path, *words: str, env: Mapping[str, str] | None = None, given: bytes = b""
) -> str:
    """Returns what git prints, without the last end of line."""
    return _run(checkout, words, env, given).decode().rstrip("\n")


def _run(
    checkout: Path,
    words: Sequence[str],
    env: Mapping[str, str] | None = None,
    given: bytes = b"",
) -> bytes:
    """Returns the bytes that git prints; what it refuses is a ValueError with its words."""
    outer = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    done = subprocess.run(
        ["git", "-C", str(checkout), *words],
        env={**outer, **PLAIN, **(env or {})},
        input=given,
        capture_output=True,
    )
    if done.returncode:
        raise ValueError(f"git {words[0]} failed in {checkout}: {done.stderr.decode().strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
