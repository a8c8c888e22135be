"""MOGONET by its authors' protocol: all of the files' train part, the last epoch, test read once.

python -m deq_fusion.examples.studies.mogonet --data-dir DIR
python -m deq_fusion.examples.studies.mogonet --data-dir DIR --runs 5 --scaled

Wang et al. (2021) cut no validation part and select no epoch: the views are trained for 500 epochs,
and they and VCDN in turn for 2,500 more. So it is here, beside what they published, with features
as the files have them, or --scaled, so that train spans [0, 1] as in the comparisons. The inductive
rows are of the same weights, by another graph of the patients of test. For the honest row:

deq-fusion compare --dataset brca --data-dir DIR --fusions concat,mogonet --runs 20

A run takes about a minute; what was interrupted goes on where it stopped. The output folder gets
mogonet.md and tables.json.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.brca.get_data import read_patients
from deq_fusion.datasets.loaders import make_loader
from deq_fusion.examples.brca.mogonet import EPOCHS, build, groups, halved_for_views, train
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.tables import Column, Spread, Table
from deq_fusion.objective_functions.mogonet import mogonet_loss
from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.comparison.identity.data import data_digests
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.evaluation import predict
from deq_fusion.training_structures.metrics import classification
from deq_fusion.training_structures.run import OtherRun

PROGRAM = "python -m deq_fusion.examples.studies.mogonet"
SCORES = {"accuracy": "accuracy", "f1": "F1", "f1_weighted": "weighted F1", "auc": "AUC"}
GRAPHS = {"transductive": False, "inductive": True}
PUBLISHED = {  # classes -> Wang et al. (2021), ROSMAP: means of five runs
    2: {"accuracy": 0.815, "f1": 0.821, "auc": 0.874},
}


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary:
    """Carries out the study that the arguments ask for; returns what it found."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    loaders = load(args.data_dir, scaled=args.scaled)
    kind = "mogonet-scaled" if args.scaled else "mogonet"
    output = args.output or Path("results", f"{args.data_dir.name}-{kind}")
    try:
        runs = [measure(loaders, seed, args.epochs, output) for seed in rows(args.runs)]
    except OtherRun as error:
        parser.error(f"{error}; name another folder (--output)")
    told = summary(runs, int(loaders[0].dataset.tensors[-1].max()) + 1)
    command = [*PROGRAM.split(), *argv]
    there = write_all(output, "mogonet", told, {}, command=command, threads=args.threads)
    print(f"\n{told}\n\n{there}")
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="folder of ROSMAP's or BRCA's csv files")
    add("--runs", type=int, default=5, help="seeds (default: 5, as published)")
    add("--epochs", type=int, default=EPOCHS, help=f"of a run (default: {EPOCHS}, as published)")
    add("--scaled", action="store_true", help="scale features so that train spans [0, 1]")
    add("--threads", type=int, default=1, help="of torch (default: 1)")
    add("--output", type=Path, help="folder (default: results/DATA-mogonet, or -mogonet-scaled)")
    return parser


def rows(runs: int) -> range:
    """Returns the seeds."""
    return range(runs)


def load(data_dir: Path, *, scaled: bool) -> tuple[DataLoader, DataLoader]:
    """Returns loaders of all patients of train, and of those of test."""
    views, labels, count = read_patients(data_dir)
    if scaled:
        low = [view[:count].min(0) for view in views]
        span = [view[:count].max(0) - least for view, least in zip(views, low, strict=True)]
        pairs = zip(views, low, span, strict=True)
        views = [(v - least) / np.where(s > 0, s, np.inf) for v, least, s in pairs]
    columns = [torch.from_numpy(column) for column in (*views, labels)]
    parts = [
        TensorDataset(*(c[part] for c in columns)) for part in (slice(count), slice(count, None))
    ]
    return tuple(
        make_loader(part, batch_size=None, shuffle=first)
        for part, first in zip(parts, (True, False), strict=True)
    )


def measure(
    loaders: tuple[DataLoader, DataLoader], seed: int, epochs: int, output: Path
) -> dict[str, dict[str, float]]:
    """Trains once, to the last epoch; returns graph -> scores on test, and the seconds.

    Raises:
        OtherRun: if the folder has a seed's training of other data, or for other epochs.
    """
    known, scored = loaders
    with seeded(seed):
        model = build(False, None, known)
        checkpoint = output / f"seed{seed}.ckpt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        history = train(
            model,
            known,
            None,
            mogonet_loss,
            epochs=epochs,
            optimizer=torch.optim.Adam,
            parameters=groups(model),
            scheduler=lambda optimizer: halved_for_views(optimizer, epochs=epochs),
            checkpoint=checkpoint,
            checkpoint_seconds=5.0,
            resume=True,
            seed=seed,
            settings={"epochs": epochs, "data": _digest(known)},
        )
        seconds = sum(epoch["seconds"] for epoch in history.epochs)
    found = {}
    for graph, inductive in GRAPHS.items():
        model.inductive = inductive
        found[graph] = scores(*predict(model, scored)) | {"seconds": seconds}
    return found


def _digest(loader: DataLoader) -> str:
    """Returns a digest of a loader's data."""
    return data_digests((loader, loader, loader), "valid")["train"]


def scores(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns the scores of the comparisons and, for two classes, F1 of the second one."""
    found = classification(prediction, truth)
    if prediction.shape[1] == 2:
        found["f1"] = float(f1_score(truth, prediction.argmax(1)))
    return found


def summary(runs: Sequence[Mapping[str, Mapping[str, float]]], classes: int) -> Summary:
    """Returns mean and deviation of every score, beside what was published."""
    told = [name for name in SCORES if name in runs[0]["transductive"]]
    columns = [Column("graph"), Column("runs", ".0f")]
    columns += [Column(SCORES[name], ".1%") for name in told] + [Column("seconds", ".0f")]
    lines = []
    for graph in GRAPHS:
        values = {name: [run[graph][name] for run in runs] for name in (*told, "seconds")}
        lines.append(
            [graph, len(runs), *(_spread(values[n]) for n in told), np.mean(values["seconds"])]
        )
    if classes in PUBLISHED:
        known = PUBLISHED[classes]
        lines.append(["published", 5, *(known.get(name) for name in told), None])
    title = "MOGONET by its authors' protocol: last epoch, no validation part"
    return Summary([Table("mogonet", columns, lines, 1, title)])


def _spread(values: Sequence[float]) -> Spread:
    return Spread(
        float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
    )


if __name__ == "__main__":
    main()
