"""Answers to questions whose answers are not published, in the file that the evaluation takes.

`--submission FILE` of this folder's `train` writes it: the model is trained as ever, and then
answers the questions that `--predict` names.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from deq_fusion.datasets.vqa.annotations import find_questions, read_questions
from deq_fusion.datasets.vqa.answers import write_results
from deq_fusion.datasets.vqa.features import open_features
from deq_fusion.datasets.vqa.get_data import question_loader
from deq_fusion.examples.vqa.recipe import features_of, view_loader
from deq_fusion.training_structures.comparison import Recipe
from deq_fusion.training_structures.comparison.single_run import Analysis, Trained
from deq_fusion.training_structures.distributed import is_main
from deq_fusion.training_structures.evaluation import call
from deq_fusion.training_structures.fit import predict


def add_submission(parser: ArgumentParser) -> Callable[[Namespace, Recipe], Analysis | None]:
    """Adds the arguments; what is returned makes of the parsed ones what is to be done, if any."""
    add = parser.add_argument_group("answers to questions of test").add_argument
    add(
        "--submission",
        type=Path,
        metavar="FILE",
        help="answer the questions of --predict after training, in the official file of results",
    )
    add(
        "--predict",
        default="test",
        metavar="QUESTIONS",
        help="their file, or its part in the folder: test or test-dev, which need no annotations",
    )
    return _submission


def _submission(args: Namespace, recipe: Recipe) -> Analysis | None:
    """Raises FileNotFoundError or ValueError before training if the questions cannot be read, an
    image that they are about has no features, or the file could not be written."""
    if args.submission is None:
        return None
    if args.unimodal:
        raise ValueError(
            "--submission is of one model, and --unimodal trains several: leave out one of the "
            "two, or name one modality by --modalities"
        )
    named = Path(args.predict)
    path = named if named.is_file() else find_questions(args.data_dir, args.predict)
    asked = read_questions(path)
    if "image" in recipe.modalities:
        open_features(features_of(recipe)).check(asked.image_ids)
    if args.submission.is_dir() or not args.submission.parent.is_dir():
        raise ValueError(
            f"--submission must name a file in a folder that is there, got {args.submission}"
        )
    return partial(submit, path, args.submission)


def submit(questions: Path, output: Path, trained: Trained, recipe: Recipe) -> dict[str, int]:
    """Answers all questions of a file by a trained model, and writes the results.

    Returns:
        How many `questions` there are.
    """
    shown = trained.loaders[0].dataset
    loader = question_loader(shown.dataset, questions)
    count = len(loader.dataset)
    if is_main():
        places, truth = predict(Chosen(trained.model), view_loader(loader, shown.views))
        answers = shown.dataset.answers.answers
        given = [answers[place] for place in places.tolist()]
        write_results(output, dict(zip(truth["question_id"].tolist(), given, strict=True)))
        print(f"the answers to {count} questions of {questions} are in {output}")
    return {"questions": count}


class Chosen(nn.Module):
    """A model's most probable answers, (batch,): of all questions that is little to keep."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return call(self.model, inputs)[0].argmax(dim=1)
