"""Questions about images: an encoder each, a fusion, a linear map to the answers.

`--set host=...` chooses the model around the fusion: `bag` (default), an LSTM over the words and
the mean of the regions; or `mcan`, `mutan`, `mutan_att`, trained as published, see `hosts`.

A set without image features, such as the questions of VQA-v2 alone, has two views of the
question instead: its words in order (`question`) and their mean (`words`). Hosts other than
`bag` then have the question alone. Where there are pictures without features, the command that
makes these is named, unless `--modalities` leaves the image out.

Where the answers to test are not published, `--part valid` scores validation; `submission` has
the answers predicted.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from scipy.sparse import csr_array
from scipy.stats import loguniform
from sklearn.naive_bayes import MultinomialNB
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datasets.loaders import make_loader
from datasets.vqa.get_data import VQA, find_features, get_dataloader
from datasets.vqa.parts import lacks_answers
from examples.own_split import check_own_split
from examples.vqa.hosts import SIZES, Host, find_host
from training_structures.comparison import Fusion, Loaders, Recipe, Score
from training_structures.metrics import answer_accuracy
from training_structures.Supervised_Learning import MMDL
from unimodals.vqa import QuestionLSTM, RegionMean, WordBag

EPOCHS, PATIENCE, DROPOUT, WIDTH, LR = 50, 5, 0.3, 256, 5e-4  # all but patience the bag's
PICTURES = (".jpg", ".jpeg", ".png")
SCORES = [Score(f"accuracy{kind}") for kind in ("", "_yes_no", "_number", "_other")]


def recipe(
    args: Namespace,
    *,
    host: str = "bag",
    size: str = "",
    features: str = "",
    tokenise: str = "",
    vocabulary: str = "train",
    min_count: int = 0,
    most: int = 0,
    batch_size: int = 0,
    width: int = 0,
    lr: float = 0.0,
    workers: int = 0,
) -> Recipe:
    """Returns the recipe for the set in `args.data_dir`: the set's own split, a seed a run.

    Args:
        host: the model around the fusion, "bag" or one of `hosts.SIZES`.
        size: of a host other than the bag; none: the first of `hosts.SIZES`.
        features: file or folder of the images' features; none: what lies in the folder.
        tokenise: "mcan" or "mutan", whose way of cutting a question into words; none: the
            host's, the bag's is "mcan".
        vocabulary: what words and answers are fitted on: "train", "train+valid", or "all" as
            published MCAN results do.
        min_count, most: how often an answer must occur, and how many are kept; 0 takes the
            numbers of the host's method, for the bag of that of `tokenise`: 9 and all for MCAN,
            1 and 2000 for Mutan.
        batch_size: questions a step; 0 takes the host's, the bag's is 64.
        width: of the bag's encoders and fused feature; 0 takes 256.
        lr: learning rate; 0 takes the host's, the bag's is 5e-4.
        workers: processes that read batches.
    """
    check_own_split(args, "the questions; see datasets/vqa")
    _check_scored(args)
    images = _images(args, features)
    label, chosen = _host(host, size, width)
    reading = {
        "features": images and str(images),
        "tokenise": tokenise or chosen.protocol,
        "words": vocabulary,
        "answers": vocabulary,
        "min_count": min_count or None,
        "most": most or None,
        "batch_size": _share(batch_size or chosen.batch_size, chosen.accumulate),
        "workers": workers,
    }
    if host != "bag":
        reading["protocol"] = chosen.protocol
        reading["drop_unanswerable"] = chosen.protocol != "mcan"
    alone, rate = ("question", "words") if host == "bag" else ("question",), lr or chosen.lr
    return Recipe(
        name=f"{args.data_dir.name}{label}{'' if images else ', no images'}",
        modalities=("question", "image") if images else alone,
        load=partial(load, args.data_dir, reading),
        build=chosen.build,
        objective=chosen.objective,
        metrics=answer_accuracy,
        scores=SCORES,
        epochs=chosen.epochs if args.epochs is None else args.epochs,
        task="multilabel",
        select="accuracy",
        patience=PATIENCE,
        optimizer=partial(chosen.optimizer, lr=rate),
        scheduler=chosen.scheduler,
        accumulate=chosen.accumulate,
        fusion_options=chosen.fusion_options,
        search={"lr": loguniform(rate / 5, 6 * rate), "weight_decay": (0.0, 1e-5, 1e-4)},
        floors={"most frequent": most_frequent, "naive Bayes": naive_bayes},
    )


def _check_scored(args: Namespace) -> None:
    if getattr(args, "part", "test") == "test" and lacks_answers(args.data_dir):
        raise SystemExit(
            f"test of {args.data_dir} has questions and no annotations, so that it cannot be "
            "scored: give --part valid, and to one of examples.vqa.vqa_deq, vqa_mutan also "
            "--submission FILE to have the questions of test answered"
        )


def _images(args: Namespace, features: str) -> str | Path | None:
    images = features or find_features(args.data_dir)
    if images:
        return images
    asked = getattr(args, "modalities", None) or ()
    pictures = find_pictures(args.data_dir)
    if "image" in asked or (pictures and not asked):
        folder = pictures or "IMAGES"
        raise SystemExit(
            f"{args.data_dir} has no image features, neither *.hdf5 nor a folder `features`"
            f"{f', but pictures in {pictures}' if pictures else ''}; name them by --set "
            "features=PATH, or make them: python -m examples.vqa.extract_features --images "
            f"{folder} --output {args.data_dir}/features.hdf5 --patches; or give --modalities "
            "question to go without"
        )
    return None


def find_pictures(data_dir: Path) -> Path | None:
    """Returns the folder of a set's pictures, at most two levels down; None if it has none."""

    def within(folder: Path) -> list[Path]:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())

    def holds(folder: Path) -> bool:
        return any(entry.name.lower().endswith(PICTURES) for entry in folder.iterdir())

    if not data_dir.is_dir() or holds(data_dir):
        return data_dir if data_dir.is_dir() else None
    found = [sub for sub in within(data_dir) if holds(sub) or any(map(holds, within(sub)))]
    return (data_dir if len(found) > 1 else found[0]) if found else None


def _host(host: str, size: str, width: int) -> tuple[str, Host]:
    """Returns what a recipe's name says of the host, and the host."""
    if host == "bag":
        if size:
            raise SystemExit(
                f"--set size is of the hosts {list(SIZES)}, got {size!r} for the bag; give --set "
                "width, or a host"
            )
        return "", Host(build=partial(build, width or WIDTH), lr=LR, epochs=EPOCHS)
    if host not in SIZES:
        raise SystemExit(f"--set host must be one of {['bag', *SIZES]}, got {host!r}")
    if width:
        raise SystemExit(f"--set width is the bag's, got {width} for {host}; give --set size")
    size = size or SIZES[host][0]
    if size not in SIZES[host]:
        raise SystemExit(f"--set size of {host} must be one of {SIZES[host]}, got {size!r}")
    return f", {host} {size}", find_host(host, size)


def _share(questions: int, batches: int) -> int:
    if questions % batches:
        raise SystemExit(
            f"--set batch_size must be a multiple of {batches}, the batches of this host's step, "
            f"got {questions}"
        )
    return questions // batches


class Views(Dataset):
    """A dataset with views of its modalities: the names chosen, then the truth."""

    def __init__(self, dataset: VQA, views: Sequence[str]) -> None:
        self.dataset, self.views = dataset, tuple(views)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: Sequence[int]) -> list:
        *inputs, truth = self.dataset[rows]
        found = dict(zip(self.dataset.modalities, inputs, strict=True))
        return [*(found["question" if v == "words" else v] for v in self.views), truth]


def load(data_dir: Path, reading: dict, run: int, modalities: Sequence[str]) -> Loaders:
    """Returns the loaders of a run; the run's number cuts validation where the set has none."""
    needed = list(dict.fromkeys("question" if m == "words" else m for m in modalities))
    loaders = get_dataloader(data_dir, modalities=needed, split_seed=run, **reading)
    return tuple(
        make_loader(
            Views(loader.dataset, modalities),
            batch_size=reading["batch_size"],
            shuffle=index == 0,
            workers=reading["workers"],
        )
        for index, loader in enumerate(loaders)
    )


def features_of(recipe: Recipe) -> str | None:
    """Returns the file or folder of the image features that a recipe reads, if any."""
    return recipe.load.args[1]["features"]


def view_loader(loader: DataLoader, views: Sequence[str]) -> DataLoader:
    """Returns a loader of questions, in order, with the views of the parts of `load`."""
    return make_loader(Views(loader.dataset, views), batch_size=64, shuffle=False)


def build(width: int, fusion: Fusion, train: DataLoader) -> nn.Module:
    """Returns the bag: an encoder for each view, the fusion, a linear head if it needs one."""
    views, data = train.dataset.views, train.dataset.dataset
    make = {
        "question": lambda: QuestionLSTM(data.words, width, dropout=DROPOUT),
        "words": lambda: WordBag(data.words, width, dropout=DROPOUT),
        "image": lambda: RegionMean(data.widths["image"], width, dropout=DROPOUT),
    }
    encoders, answers = [make[view]() for view in views], len(data.answers)
    module, out = fusion([width] * len(views), width, answers)
    if out is None:
        return MMDL(encoders, module, nn.Identity())
    head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(out, answers))
    head[1].bias.data = prior(data)
    return MMDL(encoders, module, head)


def prior(data: VQA) -> Tensor:
    """Returns the logits of how right each answer is on average over the training questions.

    From there training need not first learn that nearly all answers are wrong nearly always
    (Lin et al., 2017, section 4.1).
    """
    share = torch.as_tensor(_targets(data).sum(axis=0) / len(data)).float()
    return share.clamp(1e-4, 1 - 1e-4).logit()


def most_frequent(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """The answer that is right most often, whatever the question."""
    data = known[0].dataset.dataset
    total = sum(_targets(loader.dataset.dataset).sum(axis=0) for loader in known)
    return torch.as_tensor(total).float().expand(len(scored.dataset), len(data.answers))


def naive_bayes(known: Sequence[DataLoader], scored: DataLoader) -> Tensor:
    """Multinomial naive Bayes from the question's words, without the image."""
    model = MultinomialNB(alpha=0.1)
    answers = range(len(known[0].dataset.dataset.answers))
    for loader in known:
        data = loader.dataset.dataset
        targets = _targets(data).tocoo()  # a question counts for each of its answers, in part
        model.partial_fit(
            _counts(data)[targets.coords[0]],
            targets.coords[1],
            classes=answers,
            sample_weight=targets.data,
        )
    return torch.from_numpy(model.predict_joint_log_proba(_counts(scored.dataset.dataset))).float()


def _targets(data: VQA) -> csr_array:
    """Returns the soft targets, (questions, answers)."""
    answer, target = data.truth["answer"], data.truth["target"]
    row, place = (target > 0).nonzero(as_tuple=True)
    shape = len(data), len(data.answers)
    return csr_array((target[row, place].numpy(), (row.numpy(), answer[row, place].numpy())), shape)


def _counts(data: VQA) -> csr_array:
    """Returns how often each word occurs, (questions, words)."""
    row, place = (data.tokens > 0).nonzero(as_tuple=True)
    words = data.tokens[row, place].numpy()
    shape = len(data), data.words
    return csr_array(((words > 0).astype("f4"), (row.numpy(), words)), shape)
