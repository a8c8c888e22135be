"""MOGONET (Wang et al., 2021): graph convolutions on each omics, and a network on their product."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .patient_graphs import adjacency, kept, similarities, threshold

SLOPE = 0.25  # of LeakyReLU below zero
ROUNDS = "views", "fused"


class MOGONET(nn.Module):
    """Classifies patients by graphs of those who are alike in an omics.

    Nature Communications 12:3445. In view v with features X and the normalised adjacency A of
    `patient_graphs`

        H_0 = X,    H_l = LeakyReLU(A Dropout(H_(l-1)) W_l + b_l),    logits_v = H_L C + c

    without dropout on X, and the prediction is fusion([logits_1, ..., logits_V]). Each view is
    trained by its own logits, and the fusion by the prediction: no gradient passes from the
    fusion to the views.

    **In training** a batch's rows must be patients that the model was built with, in any order:
    they are looked up by their features, and all of those patients are nodes. **In evaluation**
    rows are new patients, and their graph is one of two:

    - transductive, as published: a new patient is joined to those of training only, and so are
      these to new ones only; the edges among the latter are left out. Its features then reach
      others that are predicted with it, over a patient of training: **the prediction of a
      patient depends on which others are in the batch**. No label of theirs is used.
    - inductive: patients of training keep their own graph, and new ones read from it. The
      prediction of a patient depends on nobody that is predicted with it.

    A patient without an omics in evaluation (`present`) is joined to nobody there, and its
    logits of that view are zeros; in training everybody must have all of them.

    All n patients of training are compared with each other when it is built: that takes memory of
    n^2 numbers.

    Args:
        views: (n, d_v) features of the patients to learn from, for each view; they and the
            thresholds become part of the state.
        labels: (n,) int64, their classes 0, 1, ...; what is kept of them is how often each comes.
        fusion: maps a list of (batch, classes) logits to (batch, classes), such as VCDN; None
            for a single view, whose logits are then the prediction.
        neighbours: k of `patient_graphs.threshold`: 10 for BRCA and 2 for ROSMAP.
        hidden: widths of the layers: as given for BRCA, (200, 200, 100) for ROSMAP.
        dropout: probability of dropout, below 1.
        inductive: how new patients are joined, see above.

    Attributes:
        round: what the next training forwards train: "views", "fused", or None for both.
    """

    thresholds: Tensor
    class_shares: Tensor
    pairs: Tensor
    weights: Tensor
    fingerprints: Tensor
    order: Tensor

    def __init__(
        self,
        views: Sequence[Tensor],
        labels: Tensor,
        fusion: nn.Module | None,
        *,
        neighbours: int = 10,
        hidden: Sequence[int] = (400, 400, 200),
        dropout: float = 0.5,
        inductive: bool = False,
    ) -> None:
        super().__init__()
        _check(views, labels, fusion)
        if not hidden or min(hidden) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "hidden must list widths of at least 1, and dropout lie from 0 to below 1, got "
                f"hidden={list(hidden)} and dropout={dropout}"
            )
        self.inductive = inductive
        self.round: str | None = None
        self._left_out: tuple[int, ...] = ()
        for number, view in enumerate(views):
            self.register_buffer(f"features_{number}", view.detach().clone())
        self.register_buffer("thresholds", torch.stack([threshold(x, neighbours) for x in views]))
        counts = labels.bincount()
        self.register_buffer("class_shares", (counts / counts.sum()).to(views[0].dtype))
        self._derive()
        widths = [view.shape[1] for view in views]
        self.first = nn.ParameterList(_xavier(width, hidden[0]) for width in widths)
        pairs = zip(hidden, [*hidden[1:], len(counts)], strict=True)
        self.later = nn.ParameterList(  # of all views at once, the last one the classifiers
            torch.stack([_xavier(*pair) for _ in views]) for pair in pairs
        )
        ends = [*hidden, len(counts)]
        self.biases = nn.ParameterList(torch.zeros(len(views), 1, width) for width in ends)
        self.dropout, self.fusion = dropout, fusion

    def forward(
        self, views: Sequence[Tensor], *, present: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Maps views, (batch, d_v) each, to logits (batch, classes) and what the loss needs.

        The extras are `trained`, a list of the logits (batch, classes) that this round trains
        (in evaluation the prediction alone), and `class_shares` (classes,), how often classes
        come in training.

        Args:
            views: features in the order of those that the model was built with.
            present: (batch, V) bool, the omics that each patient has; None: all. In evaluation.

        Raises:
            ValueError: for views that do not fit or are not finite, and in training for
                patients that the model was not built with.
        """
        if self.round is not None and self.round not in ROUNDS:
            raise ValueError(f"round must be one of {list(ROUNDS)} or None, got {self.round!r}")
        self._check_views(views)
        if not self.training:
            logits = self._of_new(views, present)
            fused = logits[0] if self.fusion is None else self.fusion(list(logits))
            return fused, {"trained": [fused], "class_shares": self.class_shares}
        if present is not None:
            raise ValueError(
                "present must be None in training, where every patient must have every omics; "
                "leave out those that lack one, or fill in what they lack"
            )
        rows = self._rows(views)
        trains_views = self.round != "fused" or self.fusion is None
        with torch.set_grad_enabled(trains_views and torch.is_grad_enabled()):
            logits = self._of_training()[:, rows]
        if self.fusion is None:
            fused = logits[0]
            trained = [fused]
        else:
            fused = self.fusion(list(logits.detach()))
            trained = [*logits] if trains_views else []
            trained += [fused] if self.round != "views" else []
        return fused, {"trained": trained, "class_shares": self.class_shares}

    @contextmanager
    def without(self, modality: int) -> Iterator[None]:
        """Predicts in its context as if no patient had that view, counted from 0."""
        before = self._left_out
        self._left_out = (*before, modality)
        try:
            yield
        finally:
            self._left_out = before

    def _of_training(self) -> Tensor:
        """Returns the logits (V, n, classes) of all patients of training, by their graphs."""
        reached = [self.get_buffer(f"reached_{v}") for v in range(len(self.first))]
        first = torch.stack([x @ weight for x, weight in zip(reached, self.first, strict=True)])
        return self._layers(first, self._among_training)

    def _of_new(self, views: Sequence[Tensor], present: Tensor | None) -> Tensor:
        """Returns the logits (V, batch, classes) of new patients, (batch, d_v) a view."""
        here = torch.ones(len(views[0]), len(views), dtype=torch.bool, device=views[0].device)
        if present is not None:
            if present.shape != here.shape or present.dtype != torch.bool:
                raise ValueError(
                    f"present must be bool of shape {tuple(here.shape)}, got {present.dtype} of "
                    f"shape {tuple(present.shape)}"
                )
            here = present.clone()
        here[:, list(self._left_out)] = False
        new = [torch.where(h.unsqueeze(1), x, 0) for h, x in zip(here.T, views, strict=True)]
        _check_finite(new)
        known = self._known()
        edges = torch.stack(
            [
                kept(similarities(k, x), least) * h
                for k, x, least, h in zip(known, new, self.thresholds, here.T, strict=True)
            ]
        )
        both = [torch.cat(pair) for pair in zip(known, new, strict=True)]
        first = torch.stack([x @ weight for x, weight in zip(both, self.first, strict=True)])

        def propagate(states: Tensor) -> Tensor:
            old, fresh = states.split([edges.shape[1], edges.shape[2]], dim=1)
            fresh_too = _normalised(fresh, edges.mT, old)
            if self.inductive:
                return torch.cat([self._among_training(old), fresh_too], 1)
            return torch.cat([_normalised(old, edges, fresh), fresh_too], 1)

        logits = self._layers(propagate(first), propagate)[:, edges.shape[1] :]
        return torch.where(here.T.unsqueeze(2), logits, 0)

    def _layers(self, first: Tensor, propagate: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns logits (V, nodes, classes) of the first layer's products (V, nodes, width)."""
        states = first + self.biases[0]
        *layers, classifiers = zip(self.later, list(self.biases)[1:], strict=True)
        for weight, bias in layers:
            states = F.leaky_relu(states, SLOPE)
            if self.training:
                states = _dropped(states, self.dropout)
            states = propagate(states @ weight) + bias
        weight, bias = classifiers
        return F.leaky_relu(states, SLOPE) @ weight + bias

    def _among_training(self, states: Tensor) -> Tensor:
        """Returns A states of every view's training graph, (V, n, width): few edges, so sparse."""
        flat = states.flatten(0, 1).to(self.weights.dtype)
        size = (len(flat), len(flat))
        graph = torch.sparse_coo_tensor(
            self.pairs, self.weights, size, check_invariants=False, is_coalesced=True
        )
        with torch.autocast(flat.device.type, enabled=False):  # torch has none of half precision
            return torch.sparse.mm(graph, flat).unflatten(0, states.shape[:2])

    def _known(self) -> list[Tensor]:
        return [self.get_buffer(f"features_{v}") for v in range(len(self.thresholds))]

    def _derive(self) -> None:
        """Sets what follows from the features: the graphs, A X, and how patients are found.

        On the CPU, wherever the features are: a threshold is the similarity of a pair, so that
        another rounding of it would make another graph of a model that is loaded.
        """
        device, known = self.thresholds.device, [x.cpu() for x in self._known()]
        both = zip(known, self.thresholds.cpu(), strict=True)
        graphs = [adjacency(x, least) for x, least in both]
        pairs = [a.nonzero() + v * len(a) for v, a in enumerate(graphs)]  # blocks of one matrix
        derived = {"pairs": torch.cat(pairs).T, "weights": torch.cat([a[a != 0] for a in graphs])}
        for number, (graph, view) in enumerate(zip(graphs, known, strict=True)):
            derived[f"reached_{number}"] = graph @ view
        # as few columns as tell patients apart as well as all do
        self._told, distinct = 1, len(_fingerprints(known, None).unique())
        while len(_fingerprints(known, self._told).unique()) < distinct:
            self._told *= 2
        ordered, order = _fingerprints(known, self._told).sort()
        derived |= {"fingerprints": ordered, "order": order}
        for name, value in derived.items():
            self.register_buffer(name, value.to(device), persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._derive()  # other features, other graphs

    def _check_views(self, views: Sequence[Tensor]) -> None:
        known = self._known()
        shapes = [tuple(x.shape) for x in views]
        wanted = [(shapes[0][0] if shapes and shapes[0] else 0, x.shape[1]) for x in known]
        if shapes != wanted:
            each = ", ".join(f"(batch, {x.shape[1]})" for x in known)
            raise ValueError(f"views must have shapes {each}, with the same rows, got {shapes}")
        own = known[0].dtype
        if any(x.dtype != own for x in views):
            raise ValueError(
                f"views must be {own}, as those that the model was built with are, got "
                f"{[str(x.dtype) for x in views]}; convert them by x.to({own})"
            )

    def _rows(self, views: Sequence[Tensor]) -> Tensor:
        """Returns the numbers (batch,) of the patients of training whose features these are."""
        sought = _fingerprints(views, self._told)
        places = torch.searchsorted(self.fingerprints, sought).clamp(max=len(self.order) - 1)
        rows = self.order[places]
        known = [x[rows] for x in self._known()]
        if not all(torch.equal(x, k) for x, k in zip(views, known, strict=True)):
            same = torch.stack([(x == k).all(1) for x, k in zip(views, known, strict=True)]).all(0)
            raise ValueError(
                f"in training every row must be a patient that the model was built with, row "
                f"{int((~same).nonzero()[0])} is not; build the model with the part that it is "
                "trained on, unchanged, or call eval() to predict others"
            )
        return rows


def _normalised(own: Tensor, edges: Tensor, others: Tensor) -> Tensor:
    """Returns what nodes have after a step: their own states, and over the edges those of others.

    Args:
        own: (V, a, width).
        edges: (V, a, b).
        others: (V, b, width).
    """
    total = 1 + edges.abs().sum(2, keepdim=True)
    return (own + edges.to(others.dtype) @ others) / total


def _dropped(states: Tensor, share: float) -> Tensor:
    """Returns the states after dropout, for which torch's draws take twice a layer's products."""
    return states * ((torch.rand_like(states) >= share) / (1 - share))


def _fingerprints(views: Sequence[Tensor], columns: int | None) -> Tensor:
    """Returns a 64-bit number for each row (batch,), the same for the same first columns.

    Sums of integers are exact, so that it depends on neither the order nor the number of rows. Each
    column has a start of its own, and every bit is mixed before the sum: of whole numbers, such as
    counts of mutations, sums with a weight a column would often agree.
    """
    values = torch.cat([x[:, :columns] for x in views], 1).double() + 0.0  # -0.0 is 0.0
    bits = values.contiguous().view(torch.int64)
    bits = bits + torch.arange(1, bits.shape[1] + 1, device=bits.device) * 0x5851F42D4C957F2D
    for odd in (0x2545F4914F6CDD1D, 0x369DEA0F31A53F85):
        bits = (bits ^ (bits >> 32)) * odd
    return (bits ^ (bits >> 32)).sum(1)


def _xavier(inputs: int, outputs: int) -> Tensor:
    return nn.init.xavier_normal_(torch.empty(inputs, outputs))


def _check(views: Sequence[Tensor], labels: Tensor, fusion: nn.Module | None) -> None:
    shapes = [tuple(view.shape) for view in views]
    if not views or any(len(s) != 2 or 0 in s or s[0] != len(labels) for s in shapes):
        raise ValueError(
            f"views must be matrices with a row for each of the {len(labels)} labels, one at "
            f"least, got shapes {shapes}"
        )
    dtypes = [str(view.dtype) for view in views]
    if len(set(dtypes)) > 1 or not views[0].is_floating_point():
        raise ValueError(f"views must be of one floating-point dtype, got {dtypes}")
    if labels.dim() != 1 or labels.dtype != torch.int64 or labels.min() < 0:
        raise ValueError(
            f"labels must be int64 of shape (n,), classes from 0 on, got {labels.dtype} of shape "
            f"{tuple(labels.shape)} from {labels.min().item()} on"
        )
    if len(views) > 1 and fusion is None:
        raise ValueError(f"fusion must be a module for {len(views)} views, got None; pass VCDN")
    if len(labels.unique()) < 2:
        raise ValueError(
            f"labels must have two classes at least, got {labels.unique().tolist()} alone"
        )
    _check_finite(views)


def _check_finite(views: Sequence[Tensor]) -> None:
    for number, view in enumerate(views):
        if not view.isfinite().all():
            raise ValueError(
                f"views[{number}] must be finite, but row "
                f"{int((~view.isfinite()).nonzero()[0, 0])} is not; of a patient without an omics "
                "say so by `present` in evaluation, and leave it out of training"
            )
