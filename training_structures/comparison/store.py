"""A comparison's folder: what it compares, and every finished run in a file of its own."""

import hashlib
import json
import os
import platform
import subprocess
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy
import sklearn
import torch

from ..event_log import Watch
from ..files import (
    CannotWrite,
    Damaged,
    Unsigned,
    read_json,
    remove_leftovers,
    sealed_json,
    set_aside,
    shown,
    write_bytes,
    write_json,
)
from ..workers import start_plainly
from .diagnoses.looking import Diagnosis
from .identity.reuse import Reuse
from .lock import locked
from .methods import Method
from .recipe import Recipe, described
from .results import check_origin, check_result
from .robustness import Look
from .run_warnings import kept
from .search import searched_by
from .single_run import run_floor, run_fusion, trial_checkpoint

FORMAT = "deq-fusion comparison 2"
EARLIER = ("deq-fusion comparison 1",)  # whose runs do not tell what code and data they had
ASKED = (
    *("name", "modalities", "epochs", "part", "trials", "drop_modality", "robustness"),
    "diagnose",
)
"""Settings that a command asks for: other ones are another comparison's, and are refused."""
LOOKS = {"analyse": "analysis", "robustness": "robustness", "diagnose": "diagnoses"}
"""Looks at a trained model -> where a result has what they found."""

_ONE_AT_A_TIME = threading.Lock()  # a run seeds its process's generators; a worker may have threads


class MixedSettings(ValueError):
    """A folder of results is that of another comparison."""


class Unwritable(ValueError):
    """A folder of results cannot be written to."""


@contextmanager
def opened(output: str | Path, recipe: Recipe, aside: list[Path]) -> Iterator[Path]:
    """Yields the folder of the runs, made if missing, once it is certain to be this comparison's.

    Meanwhile it is this process's alone. What killed processes left half written is removed.

    Args:
        output: the folder of the comparison.
        recipe: what it compares.
        aside: gets the new name of a comparison.json that was damaged, or of an earlier version.

    Raises:
        InUse: if another process has it.
        MixedSettings: if it holds another benchmark's runs, or those of other settings.
        Unwritable: if nothing can be written there.
    """
    output = Path(output)
    folder = output / "runs"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"no permission to write to {folder}")
            stack.enter_context(locked(output))
            for each in (output, folder):
                remove_leftovers(each)
            _check_manifest(output, folder, recipe, aside)
        except OSError as error:
            advice = "choose another folder"
            raise Unwritable(f"cannot write to {output} ({error}); {advice}") from error
        yield folder


def _check_manifest(output: Path, folder: Path, recipe: Recipe, aside: list[Path]) -> None:
    """Makes sure that comparison.json tells of this comparison; writes it if there is none."""
    manifest, advice = output / "comparison.json", "choose another output folder"
    shared = {k: v for k, v in recipe.shared_settings().items() if k in ASKED}
    mine = {"format": FORMAT} | shared
    try:
        there = read_json(manifest)
        earlier = there.get("format") in EARLIER
        _check(there, shared if earlier else mine, manifest, advice)
        if not earlier:
            return
        aside.append(set_aside(manifest, Unsigned.suffix))
    except FileNotFoundError:  # a kill may have come between setting aside and writing anew
        if any(folder.glob("*.json")) and not any(output.glob(f"{manifest.name}.*")):
            raise MixedSettings(
                f"{output} has runs of which no comparison.json tells what they compare; {advice}"
            ) from None
    except Damaged as error:
        if isinstance(error, Unsigned):
            _check(error.content, shared, manifest, advice)
        aside.append(set_aside(manifest, error.suffix))
    write_json(manifest, mine)


def _check(there: Any, mine: Mapping[str, str], path: Path, advice: str) -> None:
    """Raises MixedSettings unless a file tells the same as this comparison."""
    there = there if isinstance(there, dict) else {}
    changed = [key for key in mine if there.get(key) != mine[key]]
    if changed:
        key = changed[0]
        was = shown(there.get(key))
        raise MixedSettings(
            f"{path} must come from the same comparison, but {key} was {was} and is {mine[key]}; "
            f"{advice}"
        )


def stored(
    folder: Path, method: Method, run: int, demands: Mapping[str, Any], reuse: Reuse
) -> dict | None:
    """Returns the stored result of a run, or None.

    A file that is damaged, of an earlier version, of another run, or of other code or data is
    renamed, and told to `reuse`. A result of more than is asked for is returned without that.

    Args:
        folder: of the runs.
        method: whose run it is.
        run: its number.
        demands: what else was asked of it, such as the number of trials.
        reuse: tells whether it is of today's code and data.

    Raises:
        MixedSettings: if something else was asked for.
    """
    path = _path(folder, method, run, "json")
    try:
        result = read_json(path)
        check_result(result, method, run)
        if "identity" not in result:
            raise Unsigned(f"{path} does not tell its code and data: it is of an earlier version")
        check_origin(result)
    except FileNotFoundError:
        return None
    except ValueError as error:  # of Damaged, or of the check
        reuse.aside.append(set_aside(path, getattr(error, "suffix", Damaged.suffix)))
        return None
    there, asked = result["settings"], _settings(method, demands)
    expected = {key: asked[key] for key in ASKED if key in asked}
    if expected.get("drop_modality") == str(False):
        del expected["drop_modality"]
        result.pop("missing", None)
    _check(there, expected, path, "choose another output folder, or delete that file")
    for more, left in LOOKS.items():
        if more not in demands:
            result.pop(left, None)
    reason = reuse.why_not(method, run, result["identity"])
    if reason is not None:
        set_aside(path, "changed")
        reuse.changed.setdefault(reason, []).append(method.name)
        return None
    reuse.dates.append(date.fromisoformat(result["date"]))
    return result


def run_and_store(
    folder: Path,
    method: Method,
    run: int,
    demands: Mapping[str, Any],
    *,
    identity: Mapping[str, Any],
    threads: int,
    device: str,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Carries out one run of one method, and writes its result to a file of its own.

    A run that raises leaves its traceback instead, and is tried again the next time. Warnings
    are kept with the result.

    Args:
        folder: of the runs.
        method: what is trained, or fitted.
        run: its number.
        demands: what else is asked of it, such as the number of trials.
        identity: what decides the method's runs, of `Identities.of`; the data's digests are put
            to it.
        threads: that torch may use.
        device: where to train.
        watch: see `compare`.

    Returns:
        What was written; of a run that raised `method`, `run` and `error`.

    Raises:
        CannotWrite: if the folder cannot be written to.
    """
    settings = _settings(method, demands)
    decides = [settings, identity["versions"], identity["given"]]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
    # an interrupted run of other settings is another run
    checkpoint = _path(folder, method, run, f"{digest}.ckpt")
    failure = _path(folder, method, run, "error.txt")
    how = {"device": device, "checkpoint": checkpoint, "watch": watch}
    start_plainly()
    with _ONE_AT_A_TIME, _threads(threads), kept() as warned:
        try:
            result = _run(method, run, demands, how)
            result |= {"settings": settings, "identity": {**identity, "data": result.pop("data")}}
            result |= {"made_by": provenance(threads, device), "date": str(date.today())}
            result |= {"warnings": warned} if warned else {}
            check_result(result, method, run)
            check_origin(result)
            content = sealed_json(result)
        except CannotWrite:  # nor could any other run
            raise
        except Exception:  # whatever it is, the other runs go on, and the report has it
            text = traceback.format_exc()
            write_bytes(failure, text.encode(errors="backslashreplace"))
            return {"method": method.name, "run": run, "error": text}
    write_bytes(_path(folder, method, run, "json"), content)
    trials = (trial_checkpoint(checkpoint, i) for i in range(demands.get("trials", 1)))
    for leftover in (failure, *trials):
        leftover.unlink(missing_ok=True)
    return result


def _run(
    method: Method, run: int, demands: Mapping[str, Any], how: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a run gives; of a floor nothing is demanded."""
    named = {"method": method.name, "run": run}
    if method.fusion is None:
        return named | run_floor(method, run)
    look = demands.get("analyse")
    if "robustness" in demands:
        look = Look(method, run, demands["robustness"], look)
    if "diagnose" in demands:
        look = Diagnosis(method, run, look)
    if look is demands.get("analyse"):
        return named | run_fusion(method, run, **how, **demands)
    asked = {name: value for name, value in demands.items() if name not in LOOKS}
    result = run_fusion(method, run, **how, **asked, analyse=look)
    found = result.pop("analysis")
    return named | result | found


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _settings(method: Method, demands: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a run is, as text; nothing is demanded of a floor."""
    asked = (
        {} if method.fusion is None else {key: described(value) for key, value in demands.items()}
    )
    if "robustness" in asked:
        asked["noise"] = described(method.recipe.noise)
    if demands.get("trials", 1) > 1 and method.fusion is not None:
        asked["search"] = described(method.recipe.search)
        asked["searched by"] = str(searched_by(demands["trials"], prune="prune" in demands))
        asked["own search"] = described(getattr(method.fusion, "search", {}))
    return method.settings() | asked


def provenance(threads: int, device: str) -> dict[str, Any]:
    """Returns what else a bit-for-bit repetition needs: versions, code and machine."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "commit": _commit(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "device": device,
    }


@cache  # of the code that was loaded, and asked for with every run
def _commit() -> str | None:
    """Returns the commit of the checkout, with a + where files differ; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed: a repository further up is another project's
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=40"]
        found = subprocess.run([*command, "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _path(folder: Path, method: Method, run: int, kind: str) -> Path:
    return folder / f"{_stem(method, run)}.{kind}"


def _stem(method: Method, run: int) -> str:
    return f"{quote(method.name, safe=' ')}-{run}"
