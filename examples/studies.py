"""What the studies of DEQ fusion share: their rows are variants of it in a comparison.

A study is trained as `examples.compare_fusions` trains fusions, by the recipe of the dataset,
which treats a variant as it treats DEQ fusion unless the variant says otherwise (`like`).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.fusions.adapters import Sized
from deq_fusion.fusions.registry import FUSIONS, Entry
from deq_fusion.training_structures.comparison import Comparison, Recipe
from deq_fusion.training_structures.comparison.program.arguments import (
    make_parser,
    names,
    read_arguments,
)
from deq_fusion.training_structures.comparison.program.program import carry_out, results_folder
from deq_fusion.training_structures.comparison.report.table import markdown
from deq_fusion.training_structures.comparison.single_run import Analysis, Trained

INJECTIONS = {"scale_free": "deq", "raw": "deq_paper"}
"""Injection -> DEQ fusion with it, in the registry: its default, and the paper's equations."""

EPILOG = """\
{program} --list shows the rows; --fusions takes some of them.
A dataset of your own: a function of these arguments that returns a Recipe:
  {program} --dataset my_module:recipe"""


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
    """A study on a command line, see `run`.

    Attributes:
        program: how it is called.
        description: what its help says.
        variants: its rows.
        subject: the row that it is about, and that the others are tested against.
        add: adds arguments of its own to the parser.
        analyse: arguments -> what is found out about every trained model.
        suffix: of the folder's name where none is given.
    """

    program: str
    description: str
    variants: Mapping[str, Variant]
    subject: str
    suffix: str
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    analyse: Callable[[argparse.Namespace], Analysis] | None = None

    def run(self, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Comparison]] | None:
        """Carries out the comparisons that the arguments ask for, one for each injection.

        Returns:
            The arguments, `output` among them, and injection -> comparison; None if nothing but the
            list of rows was asked for.
        """
        known = entries(self.variants, "scale_free")
        parser = self._parser(known)
        args = read_arguments(parser, known, argv)
        if args.list:
            print(self._listing())
            return None
        for row, name, _ in args.option:
            if row in self.variants and name in self.variants[row].options:
                parser.error(f"--option {row}.{name} is what makes this row; choose another option")
        args.baseline = args.baseline or (self.subject if self.subject in args.chosen else None)
        args.no_unimodal = True
        folder = results_folder(args)
        args.output = args.output or folder.with_name(f"{folder.name}-{self.suffix}")
        found = {}
        for injection in args.injection:
            rows = entries(self.variants, injection)
            own = {
                "chosen": {name: rows.get(name, fusion) for name, fusion in args.chosen.items()},
                "output": args.output / injection,
            }
            found[injection] = carry_out(
                parser,
                argparse.Namespace(**{**vars(args), **own}),
                command=[self.program, *argv],
                subject=self.subject,
                change=partial(self._treated, injection),
                analyse=self.analyse and self.analyse(args),
            )
        return args, found

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
            for row, variant in self.variants.items()
        ]
        return markdown(["row", "what it is", "options of DEQFusion"], lines)

    def _treated(self, injection: str, recipe: Recipe) -> Recipe:
        likes = {row: v.like or INJECTIONS[injection] for row, v in self.variants.items()}
        treated = recipe.treating(likes)
        # what makes a row is among its settings, so that stored runs of another are refused
        options = {
            row: {**treated.fusion_options[row], **variant.options}
            for row, variant in self.variants.items()
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
            "fusions with examples.compare_fusions instead"
        )
    return trained.fusions[0]
