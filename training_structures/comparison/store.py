"""A comparison's folder: what it compares, and every finished run in a file of its own."""

import hashlib
import json
import os
import platform
import subprocess
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy
import sklearn
import torch

from ..checkpoint import save_atomically
from .methods import Method
from .recipe import Recipe, described
from .single_run import run_floor, run_fusion, trial_checkpoint

FORMAT = "deq-fusion comparison 1"
_ONE_AT_A_TIME = threading.Lock()  # a run seeds its process's generators; a worker may have threads


class MixedSettings(ValueError):
    """A folder of results is that of another comparison."""


class Unwritable(ValueError):
    """A folder of results cannot be written to."""


def open_folder(output: str | Path, recipe: Recipe) -> Path:
    """Returns the folder of the runs, made if missing, once it is certain to be this comparison's.

    Raises:
        MixedSettings: if it holds another benchmark's runs, or those of other settings or of
            another version of torch.
        Unwritable: if nothing can be written there.
    """
    output = Path(output)
    folder, manifest = output / "runs", output / "comparison.json"
    mine = {"format": FORMAT, "torch": torch.__version__} | recipe.shared_settings()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not manifest.exists():
            if any(folder.glob("*.json")):
                raise MixedSettings(
                    f"{output} has runs of which no comparison.json tells what they compare; "
                    "choose another output folder"
                )
            write_json(manifest, mine)
        elif not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write to {folder}")
    except OSError as error:
        raise Unwritable(f"cannot write to {output} ({error}); choose another folder") from error
    try:
        there = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        there = {}
    _check(there, mine, manifest, "choose another output folder")
    return folder


def _check(there: Mapping[str, Any], mine: Mapping[str, str], path: Path, advice: str) -> None:
    changed = [key for key in mine if there.get(key) != mine[key]]
    if changed:
        key = changed[0]
        raise MixedSettings(
            f"{path} must come from the same comparison, but {key} was {there.get(key)} and is "
            f"{mine[key]}; {advice}"
        )


def stored(folder: Path, method: Method, run: int, demands: Mapping[str, Any]) -> dict | None:
    """Returns the stored result of a run, or None.

    Args:
        demands: what else was asked of it, such as the number of trials.

    Raises:
        MixedSettings: if its settings were others.
    """
    path = _path(folder, method, run, "json")
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    expected = _settings(method, demands)
    _check(result["settings"], expected, path, "choose another output folder, or delete that file")
    return result


def run_and_store(
    folder: Path,
    method: Method,
    run: int,
    demands: Mapping[str, Any],
    *,
    threads: int,
    device: str,
) -> dict[str, Any]:
    """Carries out one run of one method, and writes its result to a file of its own.

    A run that raises leaves its traceback instead, and is tried again the next time.
    """
    settings = _settings(method, demands)
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    # an interrupted run of other settings is another run
    checkpoint = _path(folder, method, run, f"{digest}.ckpt")
    failure = _path(folder, method, run, "error.txt")
    with _ONE_AT_A_TIME, _threads(threads):
        try:
            if method.fusion is None:
                result = run_floor(method, run)
            else:
                result = run_fusion(method, run, device=device, checkpoint=checkpoint, **demands)
        except Exception:  # whatever it is, the other runs go on, and the report has it
            text = traceback.format_exc()
            save_atomically(failure, lambda file: file.write(text.encode()))
            return {"method": method.name, "run": run, "error": text}
    result = {"method": method.name, "run": run, **result}
    result |= {"settings": settings, "made_by": provenance(threads, device)}
    write_json(_path(folder, method, run, "json"), result)
    trials = (trial_checkpoint(checkpoint, i) for i in range(demands.get("trials", 1)))
    for leftover in (failure, *trials):
        leftover.unlink(missing_ok=True)
    return result


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _settings(method: Method, demands: Mapping[str, Any]) -> dict[str, str]:
    """Returns what decides a run, as text; nothing is demanded of a floor."""
    asked = (
        {} if method.fusion is None else {key: described(value) for key, value in demands.items()}
    )
    if demands.get("trials", 1) > 1 and method.fusion is not None:
        asked["search"] = described(method.recipe.search)
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


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    text = json.dumps(content, indent=1)
    save_atomically(path, lambda file: file.write(text.encode()))


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
