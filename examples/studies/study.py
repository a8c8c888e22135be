"""Studies whose rows are variants of DEQ fusion, trained side by side in a comparison.

A study is trained as `deq-fusion compare` trains fusions, by the recipe of the dataset,
which treats a variant as it treats DEQ fusion unless the variant says otherwise (`like`).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.fusions.adapters import Sized
from deq_fusion.fusions.registry import FUSIONS, Entry
from deq_fusion.training_structures.comparison import Comparison, Recipe
from deq_fusion.training_structures.comparison.program.arguments import (
    make_parser,
    names,
    read_arguments,
    words,
)
from deq_fusion.training_structures.comparison.program.program import (
    carry_out,
    exit_if_failed,
    results_folder,
)
from deq_fusion.training_structures.comparison.report.table import markdown
from deq_fusion.training_structures.comparison.single_run import Analysis, Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INJECTIONS = {"scale_free": "deq", "raw": "deq_paper"}
"""Injection -> DEQ fusion with it, in the registry: its default, and the paper's equations."""

EPILOG = """\
{program} --list shows the rows; --fusions takes some of them.
A dataset of your own: a function recipe(data_dir=None, *, official=False, **settings) -> Recipe:
  {program} --dataset my_module:recipe"""


Adapt = Callable[[argparse.Namespace, Mapping[str, Any], Recipe], Recipe]
Build = Callable[..., Sized]
"""(input_dims, dim, **options) -> what stands in DEQ fusion's place, and its width."""


@dataclass(frozen=True)
class Variant:
    """A row of a study.

    Attributes:
        summary: what it is, in a few words.
        options: of DEQ fusion's constructor; what makes the variant.
        wrap: DEQ fusion's constructor with an injection -> that of the variant, if options are
            not enough.
        modalities: least and most number of them; no bound if most is None.
        like: the fusion of the registry whose options and learning rate a recipe gives it, too;
            None: DEQ fusion.
    """

    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    wrap: Callable[[Build], Build] = lambda build: build
    modalities: tuple[int, int | None] = (1, None)
    like: str | None = None


def entries(variants: Mapping[str, Variant], injection: str) -> dict[str, Entry]:
    """Returns the rows of a study as fusions of a comparison, with this injection."""
    source = FUSIONS[INJECTIONS[injection]]
    return {
        name: replace(
            source,
            build=partial(_fixed, variant.wrap(source.build), dict(variant.options)),
            summary=variant.summary,
            modalities=variant.modalities,
            search={},
        )
        for name, variant in variants.items()
    }


def _fixed(
    build: Build, fixed: Mapping[str, Any], input_dims: Sequence[int], dim: int, **options: Any
) -> Sized:
    """The options of the variant come before all others; without a recipe, too."""
    return build(input_dims, dim, **{**options, **fixed})


@dataclass(frozen=True)
class Study:
    """A study whose rows are trained side by side; `main` is its command line.

    Attributes:
        program: how it is called.
        name: of its files, and of its folder behind the data's.
        description: the first part of its help.
        rows: what is compared, by name.
        subject: the row that it is about, and that the others are tested against.
        summary: injection -> comparison; returns the tables of them all.
        draw: the same; returns name -> picture, None for one that there is not.
        measure: arguments -> the function that makes numbers of one trained model; None: its
            scores are all that is measured.
        add: adds arguments of its own to the parser.
        old: name that a row had before -> its name; the old one is refused.
        adapt: (arguments, rows of a comparison, its recipe) -> the recipe as it is carried out.
    """

    program: str
    name: str
    description: str
    rows: Mapping[str, Variant]
    subject: str
    summary: Callable[[Mapping[str, Comparison]], Summary]
    draw: "Callable[[Mapping[str, Comparison]], Mapping[str, Figure | None]]"
    measure: Callable[[argparse.Namespace], Analysis] | None = None
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    old: Mapping[str, str] = field(default_factory=dict)
    adapt: Adapt = lambda args, rows, recipe: recipe

    def main(self, argv: Sequence[str]) -> Summary | None:
        """Carries out the study, writes and prints it; returns what it found.

        None if nothing but the list of rows was asked for.
        """
        found = self.run(argv)
        if found is None:
            return None
        args, comparisons = found
        summary = self.summary(comparisons)
        command = [*self.program.split(), *argv]
        how = {"command": command, "threads": args.threads, "device": args.device}
        there = write_all(args.output, self.name, summary, self.draw(comparisons), **how)
        print(f"\n{summary}\n\n{there}; every run in folders")
        exit_if_failed(*comparisons.values())
        return summary

    def run(self, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Comparison]] | None:
        """Carries out the comparisons that the arguments ask for, one for each injection.

        Returns:
            The arguments, `output` among them, and injection -> comparison; None if nothing but the
            list of rows was asked for.
        """
        known = entries(self.rows, "scale_free")
        parser = self._parser(known)
        self._refuse_old(parser, argv)
        args = read_arguments(parser, known, argv)
        if args.list:
            print(self._listing())
            return None
        for row, name, _ in args.option:
            if row in self.rows and name in self.rows[row].options:
                parser.error(f"--option {row}.{name} is what makes this row; choose another option")
        args.baseline = args.baseline or (self.subject if self.subject in args.chosen else None)
        args.no_unimodal = True
        folder = results_folder(args)
        args.output = args.output or folder.with_name(f"{folder.name}-{self.name}")
        return args, {i: self._compared(parser, args, i, argv) for i in args.injection}

    def _compared(
        self,
        parser: argparse.ArgumentParser,
        args: argparse.Namespace,
        injection: str,
        argv: Sequence[str],
    ) -> Comparison:
        rows = entries(self.rows, injection)
        own = {
            "chosen": {name: rows.get(name, fusion) for name, fusion in args.chosen.items()},
            "output": args.output / injection,
        }
        args = argparse.Namespace(**{**vars(args), **own})
        return carry_out(
            parser,
            args,
            command=[self.program, *argv],
            subject=self.subject,
            change=lambda recipe: self.adapt(args, args.chosen, self._treated(injection, recipe)),
            analyse=self.measure and self.measure(args),
        )

    def _refuse_old(self, parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
        """Ends with a message where the arguments name a row as it was called before."""
        args = parser.parse_args(argv)
        own = {name for name, _ in args.own}
        asked = [*words(args.fusions), args.baseline, *(row for row, _, _ in args.option)]
        for row in asked:
            if row in self.old and row not in own:
                parser.error(f"row {row} has another name now: {self.old[row]}")

    def _parser(self, known: Mapping[str, Entry]) -> argparse.ArgumentParser:
        parser = make_parser(
            self.program,
            RECIPES,
            usual=list(known),
            description=self.description,
            epilog=EPILOG,
            baseline=self.subject,
        )
        parser.add_argument(
            "--injection",
            type=_injections,
            default=list(INJECTIONS),
            metavar="A,B",
            help=f"how features enter the map: {', '.join(INJECTIONS)} (default: both)",
        )
        self.add(parser)
        return parser

    def _listing(self) -> str:
        lines = [
            [row, variant.summary, ", ".join(f"{k}={v}" for k, v in variant.options.items())]
            for row, variant in self.rows.items()
        ]
        return markdown(["row", "what it is", "options of DEQFusion"], lines)

    def _treated(self, injection: str, recipe: Recipe) -> Recipe:
        likes = {row: v.like or INJECTIONS[injection] for row, v in self.rows.items()}
        treated = recipe.treating(likes)
        # what makes a row is among its settings, so that stored runs of another are refused
        options = {
            row: {**treated.fusion_options[row], **variant.options}
            for row, variant in self.rows.items()
        }
        return replace(treated, fusion_options={**treated.fusion_options, **options}, floors={})


def _injections(text: str) -> list[str]:
    return names(INJECTIONS, text)


def is_deq(fusion: nn.Module) -> bool:
    """Says whether it is a `DEQFusion`, whether imported from `fusions` or `deq_fusion.fusions`."""
    return any(kind.__name__ == "DEQFusion" for kind in type(fusion).__mro__)


def only_fusion(trained: Trained) -> nn.Module:
    """Returns the model's fusion.

    Raises:
        ValueError: if the recipe builds several, of which a study could not tell.
    """
    if len(trained.fusions) != 1:
        raise ValueError(
            f"a study takes a recipe that builds one fusion, got {len(trained.fusions)}; compare "
            "fusions with deq-fusion compare instead"
        )
    return trained.fusions[0]
