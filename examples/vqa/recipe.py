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

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from scipy.sparse import csr_array
from scipy.stats import loguniform
from sklearn.naive_bayes import MultinomialNB
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deq_fusion.datasets.loaders import make_loader
from deq_fusion.datasets.vqa.annotations import lacks_answers
from deq_fusion.datasets.vqa.features import find_features
from deq_fusion.datasets.vqa.get_data import VQA, get_dataloader
from deq_fusion.examples.checks import check_positive, own_split
from deq_fusion.examples.noise import tokens, vectors
from deq_fusion.examples.vqa.hosts import SIZES, Host, find_host
from deq_fusion.training_structures.comparison import Fusion, Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import answer_accuracy
from deq_fusion.training_structures.Supervised_Learning import MMDL
from deq_fusion.unimodals.vqa import QuestionLSTM, RegionMean, WordBag

EPOCHS, PATIENCE, DROPOUT, WIDTH, LR = 50, 5, 0.3, 256, 5e-4  # all but patience the bag's
PICTURES = (".jpg", ".jpeg", ".png")
SIZES_SHOWN = "; ".join(f"{host}: {', '.join(sizes)}" for host, sizes in SIZES.items())
SCORES = [Score(f"accuracy{kind}") for kind in ("", "_yes_no", "_number", "_other")]


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    host: Annotated[str, f"the model around the fusion: bag, {', '.join(SIZES)}"] = "bag",
    size: Annotated[
        str | None,
        f"of a host other than the bag, {SIZES_SHOWN}; by default the first",
    ] = None,
    features: Annotated[
        str | None, "file or folder of the images' features; by default what lies in the folder"
    ] = None,
    tokenise: Annotated[
        str | None,
        "whose way of cutting a question into words, mcan or mutan; by default the host's, the "
        "bag's is mcan",
    ] = None,
    vocabulary: Annotated[
        str,
        "what words and answers are fitted on: train, train+valid, or all as published MCAN "
        "results do",
    ] = "train",
    min_count: Annotated[
        int | None,
        "how often an answer must occur; by default as published, of the bag by tokenise: 9 for "
        "MCAN, 1 for Mutan",
    ] = None,
    most: Annotated[
        int | None,
        "how many answers are kept; by default as published, of the bag by tokenise: all for "
        "MCAN, 2000 for Mutan",
    ] = None,
    batch_size: Annotated[
        int | None, "questions a step; by default the host's, the bag's is 64"
    ] = None,
    width: Annotated[int, "of the bag's encoders and fused feature"] = WIDTH,
    lr: Annotated[float | None, "learning rate; by default the host's, the bag's is 5e-4"] = None,
    workers: Annotated[int, "processes that read batches, besides the one that trains"] = 0,
) -> Recipe:
    """Returns the recipe for the set in a folder: the set's own split, a seed a run.

    Raises:
        ValueError: without a folder, and for settings that make no sense.
    """
    folder = own_split(data_dir, official, "the questions; see datasets/vqa")
    check_positive(min_count=min_count, most=most, batch_size=batch_size, width=width, lr=lr)
    images = features or find_features(folder)
    pictures = None if images else find_pictures(folder)
    label, chosen = _host(host, size, width)
    reading = {
        "features": images and Path(images),
        "tokenise": tokenise or chosen.protocol,
        "words": vocabulary,
        "answers": vocabulary,
        "min_count": min_count,
        "most": most,
        "batch_size": _share(batch_size or chosen.batch_size, chosen.accumulate),
        "workers": workers,
    }
    if host != "bag":
        reading["protocol"] = chosen.protocol
        reading["drop_unanswerable"] = chosen.protocol != "mcan"
    views, rate = ("question", "words") if host == "bag" else ("question",), lr or chosen.lr
    if images:
        views = "question", "image"
    elif pictures:
        views = (*views, "image")  # lacking: it is refused unless others are asked for
    return Recipe(
        name=f"{folder.name}{label}{'' if images else ', no images'}",
        modalities=views,
        load=partial(load, folder, reading),
        build=chosen.build,
        objective=chosen.objective,
        metrics=answer_accuracy,
        scores=SCORES,
        epochs=chosen.epochs,
        task="multilabel",
        select="accuracy",
        patience=PATIENCE,
        optimizer=partial(chosen.optimizer, lr=rate),
        scheduler=chosen.scheduler,
        accumulate=chosen.accumulate,
        fusion_options=chosen.fusion_options,
        search={"lr": loguniform(rate / 5, 6 * rate), "weight_decay": (0.0, 1e-5, 1e-4)},
        floors={"most frequent": most_frequent, "naive Bayes": naive_bayes},
        lacking=_lacking(folder, images, pictures),
        noise={"question": tokens, "words": tokens, "image": vectors},
    )


def _lacking(folder: Path, images: str | Path | None, pictures: Path | None) -> dict[str, str]:
    """Returns what the set is without, image features and answers to test, and what to do."""
    lacking = {}
    if lacks_answers(folder):
        lacking["test"] = (
            f"test of {folder} has questions and no annotations, so that it cannot be scored: "
            "give --part valid, and to examples.vqa.train also --submission FILE to have the "
            "questions of test answered"
        )
    if not images:
        lacking["image"] = (
            f"{folder} has no image features, neither *.hdf5 nor a folder `features`"
            f"{f', but pictures in {pictures}' if pictures else ''}; name them by --set "
            "features=PATH, or make them: python -m deq_fusion.examples.vqa.extract_features "
            f"--images {pictures or 'IMAGES'} --output {folder}/features.hdf5 --patches; or give "
            "--modalities question to go without"
        )
    return lacking


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


def _host(host: str, size: str | None, width: int) -> tuple[str, Host]:
    """Returns what a recipe's name says of the host, and the host."""
    if host == "bag":
        if size is not None:
            raise ValueError(
                f"size is of the hosts {list(SIZES)}, got {size!r} for the bag; give "
                "width, or a host"
            )
        return "", Host(build=partial(build, width), lr=LR, epochs=EPOCHS)
    if host not in SIZES:
        raise ValueError(f"host must be one of {['bag', *SIZES]}, got {host!r}")
    if width != WIDTH:
        raise ValueError(f"width is the bag's, got {width} for {host}; give size")
    size = SIZES[host][0] if size is None else size
    if size not in SIZES[host]:
        raise ValueError(f"size of {host} must be one of {SIZES[host]}, got {size!r}")
    return f", {host} {size}", find_host(host, size)


def _share(questions: int, batches: int) -> int:
    if questions % batches:
        raise ValueError(
            f"batch_size must be a multiple of {batches}, the batches of this host's step, "
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


def features_of(recipe: Recipe) -> Path | None:
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
