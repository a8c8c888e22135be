"""The cost of DEQ fusion inside the published models: its share of a training step.

python -m deq_fusion.examples.studies.cost.hosts                          every model (half an hour)
python -m deq_fusion.examples.studies.cost.hosts --hosts mutan cm_bert    some of them
python -m deq_fusion.examples.studies.cost.hosts --batch 8 --device cuda  smaller batches; on a GPU

Every model has its published size and batch (MCAN-large the half that fits a GPU, two of which
make a step), and is trained twice on the same random input, with its own fusion and with DEQ fusion
in its place; a step of Adam is part of what is measured. The two take turns, after a turn that does
not count; the table, in Markdown, has the medians. DEQ fusion's share is what the step with the
published fusion does not take.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from deq_fusion.examples.studies.cost.timing import interleaved, threads
from deq_fusion.examples.studies.drawing import COLOURS, make_figure
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.tables import Cell, Column, Table
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.objective_functions.answers import soft_answer_loss
from deq_fusion.objective_functions.mm_dynamics import mm_dynamics_loss
from deq_fusion.training_structures.batches import move
from deq_fusion.training_structures.evaluation import TrainingLoss
from deq_fusion.unimodals.cm_bert import CMBERT, CMBERTPooled, MapSum
from deq_fusion.unimodals.mcan import MCAN, PRESETS
from deq_fusion.unimodals.mm_dynamics import MMDynamics
from deq_fusion.unimodals.mutan_vqa import MutanAtt, MutanNoAtt
from deq_fusion.unimodals.pretrained import BertEncoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.studies.cost.hosts"
Slot = Callable[[Sequence[int], int], tuple[nn.Module, int]]
"""(widths of the features, width wanted) -> a fusion and the width of its result."""

BRCA, CLASSES, PATIENTS = (1000, 1000, 503), 5, 612  # features of each view
PIECES, LENGTH, AUDIO = 30522, 50, 5  # of BERT; of a text and its audio
WORDS, ANSWERS, QUESTION = 20_000, {"mcan": 3129, "mutan": 2000}, {"mcan": 14, "mutan": 26}
REGIONS, REGION_DIM = {"mcan": 100, "mutan": 36}, 2048


class Case(NamedTuple):
    """A model to measure.

    Attributes:
        build: the fusion's slot -> the model.
        make: number of samples -> inputs and truth.
        objective: see `fit`.
        own: the published fusion.
        options: of DEQ fusion.
        batch: samples a step, as published.
        target: the largest share of the step that DEQ fusion is to take; None: there is none.
    """

    build: Callable[[Slot], nn.Module]
    make: Callable[[int], tuple[list[Tensor], Any]]
    objective: Callable[..., Tensor]
    own: Slot
    options: dict[str, Any]
    batch: int
    target: float | None = None


class Result(NamedTuple):
    """The measurements of a model, in milliseconds and in steps of DEQ fusion's solver."""

    host: str
    parameters: int
    batch: int
    own: float
    deq: float
    steps: float
    target: float | None

    @property
    def share(self) -> float:
        """DEQ fusion's share of its training step."""
        return 1 - self.own / self.deq

    def to_row(self) -> list[Cell]:
        """Returns the line of the table."""
        met = None
        if self.target is not None:
            met = f"<= {self.target:.0%}: {'met' if self.share <= self.target else 'missed'}"
        times = [self.own, self.deq, self.deq / self.own]
        return [self.host, self.parameters / 1e6, self.batch, *times, self.share, self.steps, met]


COLUMNS = (
    *(Column("model"), Column("M parameters", ".1f"), Column("batch", ".0f")),
    *(Column("published fusion, ms", ",.0f"), Column("DEQ fusion, ms", ",.0f")),
    *(Column("ratio", ".2f"), Column("DEQ fusion's share", ".1%"), Column("steps", ".1f")),
    Column("target"),
)


def summary(found: Sequence[Result]) -> Summary:
    """Returns the table of the models that were measured."""
    title = "DEQ fusion's share of the training step of the published models"
    return Summary([Table("hosts", COLUMNS, [result.to_row() for result in found], 1, title)])


def draw(found: Sequence[Result]) -> "dict[str, Figure]":
    """Returns DEQ fusion's share of every model's training step."""
    figure, (axes,) = make_figure(1, 0.9 + 0.3 * len(found))
    shares = [100 * result.share for result in found]
    axes.barh(range(len(found)), shares, 0.6, color=COLOURS[0])
    axes.set_yticks(range(len(found)), [result.host for result in found], fontsize=8)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(min(0, *shares, 0), 100)
    axes.set_title("DEQ fusion's share of the training step", fontsize=9, loc="left")
    axes.set_xlabel("%: what the step with the published fusion does not take", fontsize=8)
    return {"hosts": figure}


def mm_dynamics(hidden: int, slot: Slot) -> nn.Module:
    """MM-Dynamics for BRCA (Han et al., 2022), and as Ni et al. (2023) have it with 500."""
    return MMDynamics(BRCA, hidden, CLASSES, *slot([hidden] * len(BRCA), hidden))


def cm_bert(slot: Slot) -> nn.Module:
    """CM-BERT with BERT-base (Yang et al., 2020)."""
    return CMBERT(_bert(), AUDIO, slot([LENGTH, LENGTH], LENGTH)[0], length=LENGTH)


def cm_bert_pooled(slot: Slot) -> nn.Module:
    """CM-BERT's parts with a fusion of two vectors."""
    bert = _bert()
    fusion, width = slot([bert.dim, 30], bert.dim)
    return CMBERTPooled(bert, AUDIO, fusion, fused_dim=width)


def mcan(size: str, slot: Slot) -> nn.Module:
    """MCAN (Yu et al., 2019)."""
    out = PRESETS[size]["out"]
    fusion, width = slot([out, out], out)
    options = {"words": WORDS, "region_dim": REGION_DIM, **PRESETS[size]}
    return MCAN(fusion, width, ANSWERS["mcan"], **options)


def mutan(slot: Slot) -> nn.Module:
    """Mutan without attention (Ben-younes et al., 2017)."""
    return MutanNoAtt(WORDS, REGION_DIM, ANSWERS["mutan"], *slot([360, 360], 360))


def mutan_att(slot: Slot) -> nn.Module:
    """Mutan with attention (Ben-younes et al., 2017)."""
    return MutanAtt(WORDS, REGION_DIM, ANSWERS["mutan"], *slot([620, 310], 510))


def _bert() -> nn.Module:
    sizes = {"vocabulary": PIECES, "width": 768, "layers": 12, "heads": 12, "length": 512}
    return BertEncoder(None, pooled=False, **sizes)


def omics(batch: int) -> tuple[list[Tensor], Tensor]:
    """Patients as of BRCA."""
    return [torch.rand(batch, d) for d in BRCA], torch.randint(CLASSES, (batch,))


def utterances(batch: int) -> tuple[list[Tensor], Tensor]:
    """Texts of 7 to 50 word pieces, and their audio."""
    lengths = torch.randint(7, LENGTH + 1, (batch, 1))
    here = torch.arange(LENGTH) < lengths
    tokens = torch.randint(1, PIECES, (batch, LENGTH)) * here
    return [tokens, torch.randn(batch, LENGTH, AUDIO) * here[:, :, None]], torch.randn(batch, 1)


def questions(protocol: str, batch: int) -> tuple[list[Tensor], Any]:
    """Questions of full length about images, with the answers of the protocol."""
    tokens = torch.randint(1, WORDS, (batch, QUESTION[protocol]))
    image = torch.randn(batch, REGIONS[protocol], REGION_DIM).relu()
    answer = torch.randint(ANSWERS[protocol], (batch,))
    if protocol == "mutan":
        return [tokens, image], answer
    return [tokens, image], {"answer": answer[:, None], "target": torch.ones(batch, 1)}


def _maps_sum(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    return MapSum(), dim


_MAPS = {"groups": 5}  # as in the recipes: 4 does not divide 50, or 510
_OMICS = FUSIONS["concat"], {}, PATIENTS, 0.87
_EMBEDDED = {"hidden": None, "dropout": 0.0}  # by the host, before
_MUTAN = partial(questions, "mutan"), nn.functional.cross_entropy
_MCAN = partial(questions, "mcan"), soft_answer_loss, FUSIONS["sum"], {}
CASES: dict[str, Case] = {
    "mm_dynamics_1000": Case(partial(mm_dynamics, 1000), omics, mm_dynamics_loss, *_OMICS),
    "mm_dynamics_500": Case(
        partial(mm_dynamics, 500), omics, partial(mm_dynamics_loss, growth=1.5), *_OMICS
    ),
    "cm_bert": Case(
        cm_bert, utterances, nn.functional.mse_loss, _maps_sum, _MAPS, batch=24, target=0.2
    ),
    "cm_bert_pooled": Case(
        cm_bert_pooled, utterances, nn.functional.mse_loss, FUSIONS["concat"], {}, 24, 0.2
    ),
    "mcan_small": Case(partial(mcan, "small"), *_MCAN, batch=64),
    "mcan_large": Case(partial(mcan, "large"), *_MCAN, batch=32, target=0.2),
    "mutan": Case(mutan, *_MUTAN, partial(FUSIONS["mutan"], **_EMBEDDED, rank=10), {}, batch=512),
    "mutan_att": Case(
        mutan_att, *_MUTAN, partial(FUSIONS["mutan"], **_EMBEDDED, rank=5), _MAPS, batch=128
    ),
}


def measure(host: str, *, batch: int, seconds: float, most: int, device: str) -> Result:
    """Returns the medians of a model's training step with either fusion.

    Args:
        host: one of `CASES`.
        batch: samples a step; 0: as published.
        seconds: see `interleaved`.
        most: likewise.
        device: likewise.
    """
    case = CASES[host]
    torch.manual_seed(0)
    data = move(case.make(batch or case.batch), device)
    own, deq = (case.build(slot) for slot in (case.own, deq_slot(case)))
    models = {"own": own, "deq": deq}
    steps = {name: make_step(m, case.objective, data, device) for name, m in models.items()}
    taken = interleaved(steps, seconds=seconds, most=most, device=device)
    return Result(
        host,
        sum(p.numel() for p in own.parameters()),
        batch or case.batch,
        1e3 * taken["own"],
        1e3 * taken["deq"],
        deq.fusion.info.steps.double().mean().item(),
        case.target,
    )


def deq_slot(case: Case) -> Slot:
    """Returns DEQ fusion as it goes into the case's model."""
    return partial(FUSIONS["deq"], **case.options)


def make_step(
    model: nn.Module, objective: Callable[..., Tensor], data: tuple[Any, Any], device: str
) -> Callable[[], None]:
    """Returns a training step of the model on the data, which lie on the device."""
    loss = TrainingLoss(model, objective, "fp32", torch.device(device)).to(device)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        loss(*data).backward()
        optimizer.step()

    return step


def main(argv: Sequence[str] | None = None) -> Summary:
    """Measures what the arguments ask for, prints and saves it; returns what was found."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = f"which (default: all): {', '.join(CASES)}"
    add("--hosts", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=names)
    add("--batch", type=int, default=0, help="samples a step (default: as published)")
    add("--seconds", type=float, default=30.0, help="time for a model's repeats (default: 30)")
    add("--most", type=int, default=15, help="most repeats (default: 15)")
    add("--device", default="cpu", help="where to measure (default: cpu)")
    add("--threads", type=int, default=1, help="threads of torch on a CPU (default: 1)")
    add("--output", type=Path, default=Path("results/cost-hosts"), help="folder of the table")
    args = parser.parse_args(argv)
    if args.batch < 0 or args.threads < 1:
        parser.error("--batch must not be negative, and --threads at least 1")
    options = {name: getattr(args, name) for name in ("batch", "seconds", "most", "device")}
    how = {"command": [*PROGRAM.split(), *argv], "threads": args.threads, "device": args.device}
    found = []
    with threads(args.threads):
        for host in args.hosts:
            print(f"{host} ...", file=sys.stderr, flush=True)
            found.append(measure(host, **options))
            write_all(args.output, "hosts", summary(found), {}, **how)
    told = summary(found)
    print(f"{told}\n\n{write_all(args.output, 'hosts', told, draw(found), **how)}")
    return told


if __name__ == "__main__":
    main()
