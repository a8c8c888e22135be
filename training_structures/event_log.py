"""TensorBoard's event files of a training: every number of its records, epoch by epoch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from .run import Callback, History

Watch = Callable[[str, int, int], AbstractContextManager[Callback]]
"""(method's name, run, trial) -> what is called after every epoch of that training; when the
training is over, the context ends."""


def event_logs(folder: str | Path) -> Watch:
    """Returns what writes event files to `folder`, in a subfolder for each training.

    That is method-run, and method-run+2 for the third trial of a search.

    Raises:
        ValueError: if TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"event files need TensorBoard ({error}): pip install tensorboard"
        ) from error
    return partial(_event_log, Path(folder))


@contextmanager
def _event_log(folder: Path, method: str, run: int, trial: int) -> Iterator[Callback]:
    from torch.utils.tensorboard import SummaryWriter  # slow, and an extra

    writer: SummaryWriter | None = None
    own = folder / f"{quote(method, safe=' ')}-{run}{f'+{trial}' if trial else ''}"

    def write(history: History) -> None:
        nonlocal writer
        record = history.epochs[-1]
        if writer is None:  # a resumed run goes on where its last checkpoint was
            writer = SummaryWriter(str(own), purge_step=record["epoch"])
        for name, value in record.items():
            if name != "epoch":
                writer.add_scalar(name, value, record["epoch"])
        writer.flush()

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
