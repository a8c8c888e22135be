"""The fusions that can be compared: one entry adds a fusion to every comparison."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from . import adapters
from .common_fusions import LowRankTensorFusion, MultiplicativeInteractions3Modal
from .cross import CrossFusion
from .early_lstm import EarlyLSTM
from .embracenet import EmbraceNet
from .equilibrium.checks import check_width
from .gated import GatedMultimodalUnit
from .healnet import HEALNet
from .mbt import BottleneckTransformer
from .memory_fusion import MemoryFusion
from .modalities import check_widths
from .multi_attention import MultiAttentionRecurrence
from .multistage import MultistageRecurrence
from .mutan import Mutan
from .simbamm import SimBaMM
from .token_attention import TokenAttention
from .weighted_sum import Sum, WeightedSum

CLASSES_ONLY = ("classification",)
ALIGNED = ("sequences", "vectors")  # vectors are sequences of one step


@dataclass(frozen=True)
class Entry:
    """A fusion as a comparison meets it.

    Attributes:
        build: (widths of the features, width wanted, **options) -> the fusion, or (fusion, width
            of its result) if that is another width; None if it predicts on its own.
        summary: what it is, in a few words.
        cost: multiply-adds a sample, for N modalities of width d fused to width d.
        modalities: least and most number of them; no bound if most is None.
        features: "vectors", (batch, d_i), and "sequences", (batch, time, d_i), as it takes them.
        tasks: what it can be trained for.
        predicts: whether it is built with `outputs`, their number, and `task`.
        reduce: width that features are projected to first, with learnt maps, where the size of
            the fusion explodes; the option `reduce` changes it.
        search: option -> values to choose from, when hyperparameters are searched.
        source: author and year of what it follows.
    """

    build: Callable[..., Any]
    summary: str
    cost: str
    modalities: tuple[int, int | None] = (1, None)
    features: tuple[str, ...] = ("vectors",)
    tasks: tuple[str, ...] = ("classification", "multilabel", "regression")
    predicts: bool = False
    reduce: int | None = None
    search: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    source: str = ""

    @property
    def takes(self) -> str:
        """Its input in words: how many modalities, of which features."""
        least, most = self.modalities
        count = (
            f"{least}" if most == least else f"{least} to {most}" if most else f"{least} or more"
        )
        return f"{count}: {' or '.join(self.features)}"

    def __call__(self, input_dims: Sequence[int], dim: int, /, **options: Any) -> adapters.Sized:
        """Returns the fusion and the width of its result, see `build`.

        It is called with the list of features, and may be told by `present`, (batch, N) bool,
        which modalities each sample has: see `adapters.Zeroed`.
        """
        least, most = self.modalities
        count = len(input_dims) if isinstance(input_dims, Sequence) else least
        if not least <= count <= (most or count):
            wanted = f"{least}" if least == most else f"{least} or more"
            raise ValueError(
                f"input_dims must list {wanted} widths, one for each modality, got "
                f"{list(input_dims)}"
            )
        check_widths(input_dims, dim=dim)
        reduce = options.pop("reduce", self.reduce)
        if reduce is not None:
            check_width("reduce", reduce)
        dims = list(input_dims) if reduce is None else [reduce] * len(input_dims)
        built = self.build(dims, dim, **options)
        fusion, width = (built, dim) if isinstance(built, nn.Module) else built
        if reduce is not None:
            fusion = adapters.Reduced(input_dims, reduce, fusion)
        adapters.Zeroed.put_on(fusion)
        return fusion, width


_DEQ = {"dropout": (0.0, 0.2, 0.5), "jacobian_weight": (0.0, 0.1, 1.0)}
_SOLVES = "steps x (2 N + 2) d^2"

FUSIONS: Mapping[str, Entry] = {
    "deq": Entry(
        adapters.deq,
        "DEQ fusion, scale-free injection",
        _SOLVES,
        search=_DEQ,
        source="Ni et al., 2023; injection our own",
    ),
    "deq_one_step": Entry(
        partial(adapters.deq, gradient="one_step"),
        "DEQ fusion, Jacobian-free gradient",
        _SOLVES,
        search=_DEQ,
        source="Ni et al., 2023; Fung et al., 2022",
    ),
    "deq_neumann": Entry(
        partial(adapters.deq, gradient="neumann"),
        "DEQ fusion, gradient of a truncated Neumann series",
        _SOLVES,
        search=_DEQ,
        source="Ni et al., 2023; Geng et al., 2021",
    ),
    "deq_paper": Entry(
        partial(adapters.deq, equations="paper"),
        "DEQ fusion, the paper's equations as written",
        _SOLVES,
        search=_DEQ,
        source="Ni et al., 2023",
    ),
    "deq_unrolled": Entry(
        partial(adapters.deq, unroll=6),
        "DEQ fusion's map applied 6 times, backpropagated",
        "6 (2 N + 2) d^2",
        search={"dropout": _DEQ["dropout"], "unroll": (2, 4, 8)},
        source="after Ni et al., 2023",
    ),
    "concat": Entry(adapters.concat, "concatenation", "none", source="classical"),
    "concat_linear": Entry(
        adapters.concat_linear, "concatenation and a linear map", "N d^2", source="classical"
    ),
    "sum": Entry(Sum, "plain sum", "none", source="Yu et al., 2019"),
    "weighted_sum": Entry(
        WeightedSum, "sum with learnt scalars", "N d", source="Ni et al., 2023, Table 5"
    ),
    "film": Entry(
        adapters.film,
        "second modality scales and shifts the first",
        "2 d^2",
        modalities=(2, 2),
        source="Perez et al., 2018",
    ),
    "interactions": Entry(
        adapters.interactions,
        "multiplicative interactions of two",
        "d^3",
        modalities=(2, 2),
        search={"output": ("matrix", "vector")},
        source="Jayakumar et al., 2020",
    ),
    "interactions3": Entry(
        MultiplicativeInteractions3Modal,
        "multiplicative interactions of three",
        "N d reduce + reduce^3 d",
        modalities=(3, 3),
        reduce=16,
        search={"reduce": (8, 16, 24)},
        source="after Jayakumar et al., 2020",
    ),
    "tensor": Entry(
        adapters.tensor_fusion,
        "outer product of all",
        "N d reduce + (reduce + 1)^N",
        modalities=(2, None),
        reduce=6,
        search={"reduce": (3, 5, 6)},
        source="Zadeh et al., 2017",
    ),
    "low_rank": Entry(
        partial(LowRankTensorFusion, rank=16),
        "outer product, low-rank",
        "16 N d^2",
        search={"rank": (4, 16, 32)},
        source="Liu et al., 2018",
    ),
    "mutan": Entry(
        partial(Mutan, dropout=0.5),
        "Tucker product, low-rank",
        "11 x 360 N d",
        modalities=(2, None),
        search={"rank": (5, 10, 20)},
        source="Ben-younes et al., 2017",
    ),
    "nl_gate": Entry(
        adapters.nl_gate,
        "non-local gate, first attends to second",
        "3 d^2",
        modalities=(2, 2),
        source="Wang et al., 2018 and 2020",
    ),
    "gmu": Entry(
        GatedMultimodalUnit, "gated multimodal unit", "(N + N^2) d^2", source="Arevalo et al., 2017"
    ),
    "attention": Entry(
        TokenAttention,
        "Transformer layer over modality tokens",
        "12 (N + 1) d^2",
        search={"layers": (1, 2), "dropout": (0.0, 0.2)},
        source="Vaswani et al., 2017",
    ),
    "cross": Entry(
        CrossFusion,
        "encoders read each other's features",
        "(2 N^2 + N) d^2",
        modalities=(2, None),
        search={"consistency": (0.1, 1.0)},
        source="Hong et al., 2020",
    ),
    "evidential": Entry(
        adapters.evidential,
        "Dempster's combination of opinions",
        "N d classes",
        tasks=CLASSES_ONLY,
        predicts=True,
        search={"anneal_steps": (50, 500, 5000)},
        source="Han et al., 2021",
    ),
    "vcdn": Entry(
        adapters.vcdn,
        "network on the product of all class probabilities",
        "N d classes + classes^(2 N)",
        modalities=(2, None),
        tasks=CLASSES_ONLY,
        predicts=True,
        search={"hidden": (16, 64, 256)},
        source="Wang et al., 2019 and 2021",
    ),
    "late": Entry(
        adapters.late,
        "mean of each modality's prediction",
        "N d outputs",
        predicts=True,
        source="classical",
    ),
    "mult": Entry(
        adapters.mult,
        "cross-modal Transformers (MulT)",
        "time (12 N^2 + 36 N^3) 16^2",
        features=("vectors", "sequences"),
        search={"layers": (1, 2)},
        source="Tsai et al., 2019",
    ),
    "late_transformer": Entry(
        adapters.late_transformer,
        "Transformer over each modality's series",
        "3 N time d 9 x 4096",
        features=("sequences",),
        search={"embed_dim": (9, 18)},
        source="Liang et al., 2021",
    ),
    "early_transformer": Entry(
        adapters.early_transformer,
        "Transformer over the stacked series",
        "3 time d 9 x 4096",
        features=("sequences",),
        tasks=("regression",),
        predicts=True,
        source="Liang et al., 2021",
    ),
    "early_gru": Entry(
        adapters.EarlyGRU,
        "sequences concatenated step by step, GRU",
        "time 3 (N + 1) d^2",
        features=("sequences",),
        source="Liang et al., 2021",
    ),
    "ef_lstm": Entry(
        EarlyLSTM,
        "sequences concatenated step by step, LSTM (EF-LSTM)",
        "time 4 (N + 1) d^2",
        features=ALIGNED,
        search={"dropout": (0.0, 0.2, 0.5)},
        source="Zadeh et al., 2018",
    ),
    "mfn": Entry(
        MemoryFusion,
        "LSTM a modality, gated memory of their changes (MFN)",
        "time 25 d^2",
        features=ALIGNED,
        search={"dropout": (0.0, 0.2, 0.5)},
        source="Zadeh et al., 2018",
    ),
    "marn": Entry(
        MultiAttentionRecurrence,
        "hybrid LSTM a modality, several attentions (MARN)",
        "time 22 d^2",
        features=ALIGNED,
        search={"attentions": (1, 2, 4), "dropout": (0.0, 0.2, 0.5)},
        source="Zadeh et al., 2018",
    ),
    "rmfn": Entry(
        MultistageRecurrence,
        "hybrid LSTM a modality, fused in stages (RMFN)",
        "time 64 d^2",
        features=ALIGNED,
        search={"stages": (1, 2, 3), "dropout": (0.0, 0.2, 0.5)},
        source="Liang et al., 2018",
    ),
    "simbamm": Entry(
        SimBaMM,
        "Transformer over modality tokens, norms last (SimBaMM)",
        "20 (N + 1) d^2",
        search={"layers": (1, 2, 4), "dropout": (0.0, 0.2)},
        source="Rheude et al., 2025",
    ),
    "late_unimodal": Entry(
        adapters.late_unimodal,
        "mean of each modality's outputs, trained by their own losses as well",
        "N d outputs",
        predicts=True,
        source="Zhang et al., 2023, its control",
    ),
    "qmf": Entry(
        adapters.qmf,
        "each modality's logits, weighted by their energy (QMF)",
        "N d classes",
        tasks=CLASSES_ONLY,
        predicts=True,
        search={"rank_weight": (0.0, 0.1, 1.0)},
        source="Zhang et al., 2023",
    ),
    "pdf": Entry(
        adapters.pdf,
        "each modality's logits, weighted by predicted confidence (PDF)",
        "N d (classes + 64)",
        tasks=CLASSES_ONLY,
        predicts=True,
        search={"hidden": (16, 64, 256)},
        source="Cao et al., 2024",
    ),
    "mbt": Entry(
        BottleneckTransformer,
        "Transformers that meet in bottleneck tokens (MBT)",
        "24 N (time + 5) d^2",
        features=("sequences", "vectors"),
        search={"layers": (1, 2), "bottlenecks": (1, 4), "dropout": (0.0, 0.2)},
        source="Nagrani et al., 2021",
    ),
    "healnet": Entry(
        HEALNet,
        "latent vectors that read all again and again, weights tied (HEALNet)",
        "3 (N (116 + 3 time) + 128) d^2",
        features=("sequences", "vectors"),
        search={"rounds": (2, 3, 5), "dropout": (0.0, 0.2)},
        source="after Hemker et al., 2024",
    ),
    "meq": Entry(
        adapters.meq,
        "equilibrium of states that feed each other (MEQ)",
        "steps x 2 N d^2 + 2 N d^2",
        search={"jacobian_weight": (0.0, 0.5)},
        source="after Park and Kang, 2026",
    ),
    "embracenet": Entry(
        EmbraceNet,
        "each entry from a modality drawn for it (EmbraceNet)",
        "N d^2",
        source="Choi and Lee, 2019",
    ),
}
