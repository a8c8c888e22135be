"""The ablations replace the term they name and no other; table, CSV and picture tell of their runs.

What a row must give is the written equations of the whole fusion with one term replaced.
"""

import csv
from functools import partial
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from deq_fusion.examples.studies.ablation import (
    OLD,
    PARTS,
    STUDIES,
    draw,
    marks,
    numbers,
    rows,
    summary,
)
from deq_fusion.examples.studies.study import INJECTIONS, entries
from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.report.table import make_rows
from unit_tests.fusions.deq_reference import (
    DIM,
    EXACT,
    GROUPS,
    VARIANTS,
    WIDTHS,
    Reference,
    make_features,
)

EQUATIONS = {"scale_free": VARIANTS["default"], "raw": VARIANTS["paper"]}
GONE = {  # row -> what its parameters' names begin with that the whole fusion has, and it has not
    "only_weighted_sum": ("unimodal.", "fuse."),
    "no_equilibrium": (),
    "no_equilibrium_states": (),
    "no_f_fuse": ("fuse.", "weights"),
    "no_f_theta": ("unimodal.",),
    "no_gate": ("fuse.gate_",),
    "full": (),
}
injections = pytest.mark.parametrize("injection", INJECTIONS)
all_rows = pytest.mark.parametrize("row", PARTS)


def build(row, injection, **options):
    options = {"groups": GROUPS, "start": 0.03, **options}
    module, width = entries(PARTS, injection)[row].build(WIDTHS[:3], DIM, **options)
    assert width == DIM
    return module.double()


def built(row, injection):
    """A row, and the whole fusion with the same parameters, all moved away from their start."""
    part, whole = (build(name, injection, **EXACT) for name in (row, "full"))
    with torch.no_grad():
        for parameter in whole.parameters():
            spread = parameter.std(unbiased=False).item() or 1.0
            parameter += 0.2 * spread * torch.randn_like(parameter)
    inner = getattr(part, "fusion", part)
    names = {name for name, _ in inner.named_parameters()}
    inner.load_state_dict({k: v for k, v in whole.state_dict().items() if k in names})
    return part, whole, names


class Replaced(Reference):
    """The equations of the whole fusion, one term of which a row replaces."""

    def __init__(self, row, whole, injection):
        super().__init__(whole, EQUATIONS[injection])
        self.row = row

    def f_i(self, i, z, x):
        return x if self.row == "no_f_theta" else super().f_i(i, z, x)

    def f_fuse(self, z, states, x_fuse, masks=None):
        if self.row != "no_gate":
            return super().f_fuse(z, states, x_fuse, masks)
        _, _, weight, bias, scale, shift = self.fusion.fuse.tensors()
        purified = sum(states)  # in (10) each z_i stands in place of alpha_i z
        return self.norm(F.relu(F.linear(purified, weight, bias) + x_fuse), scale, shift)

    def fused(self, features):
        if self.row == "only_weighted_sum":
            return self.x_fuse(self.projected(features))
        if self.row.startswith("no_equilibrium"):
            return self.unrolled(1, features, inject_states=self.row == "no_equilibrium_states")
        state = self.fixed_point(features)
        return state[:, :-1].sum(1) if self.row == "no_f_fuse" else state[:, -1]


@all_rows
@injections
def test_a_row_is_the_whole_fusion_with_the_term_replaced_that_it_names(row, injection):
    part, whole, _ = built(row, injection)
    features = make_features(WIDTHS[:3], batch=4)
    got = part(features)
    want = Replaced(row, whole, injection).fused(features)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    if row != "full":
        assert (got - whole(features)).norm() > 1e-3 * got.norm()


@all_rows
@injections
def test_a_row_has_the_parameters_of_the_whole_but_for_those_of_the_part_left_out(row, injection):
    part, whole, names = built(row, injection)
    all_names = {name for name, _ in whole.named_parameters()}
    gone = {name for name in all_names if name.startswith(GONE[row])}
    assert names == all_names - gone and (not GONE[row] or gone)
    sizes = {name: p.numel() for name, p in whole.named_parameters()}
    count = sum(p.numel() for p in part.parameters())
    assert count == sum(size for name, size in sizes.items() if name not in gone)


@all_rows
@injections
def test_every_parameter_of_a_row_learns_but_those_that_one_step_from_zero_cannot(row, injection):
    part, _, _ = built(row, injection)
    fused = part(make_features(WIDTHS[:3], batch=4))
    fused.backward(torch.randn_like(fused))
    still = {name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()}
    # from zero nothing is multiplied by the first matrix of f_theta, nor by the gate
    first = {"fuse.gate_weight", "fuse.gate_bias", "fuse.weight", "unimodal.weight1"}
    if row == "no_equilibrium":
        first |= {name for name, _ in part.named_parameters() if name.startswith("unimodal.")}
    assert still == (first if row.startswith("no_equilibrium") else set())


@all_rows
def test_absent_modalities_take_no_part_in_a_row(row):
    part, whole, _ = built(row, "raw")
    features = make_features(WIDTHS[:3], batch=2)
    present = torch.tensor([[True, False, True]] * 2)
    got = part(features, present=present)
    other = [features[0], 7 * features[1] + 1, features[2]]
    assert part(other, present=present).equal(got)
    if row == "only_weighted_sum":  # the widths are d, so that nothing is projected
        want = whole.weights[0] * features[0] + whole.weights[2] * features[2]
        torch.testing.assert_close(got, want)


def test_the_marks_are_those_of_the_papers_tables():
    wanted = {
        "only_weighted_sum": ["", "", "", "-"],
        "no_equilibrium": ["x", "x", "", "x"],
        "no_equilibrium_states": ["x", "x", "", "x"],
        "no_f_fuse": ["x", "", "x", "-"],
        "no_f_theta": ["", "x", "x", "x"],
        "no_gate": ["x", "x", "x", ""],
        "full": ["x", "x", "x", "x"],
    }
    assert {name: marks(variant) for name, variant in PARTS.items()} == wanted


def test_the_other_studies_change_one_option_and_have_their_subject():
    assert set(STUDIES) == {"parts", "jacobian", "unrolled"}
    for subject, variants in STUDIES.values():
        assert subject in variants
    options = {name: dict(v.options) for name, v in STUDIES["jacobian"][1].items()}
    assert all(name == f"penalty_{o['jacobian_weight']:g}" for name, o in options.items())
    rows = entries(STUDIES["jacobian"][1], "raw")  # where a recipe has a weight of its own, too
    weights = [rows[name].build([4], 8, jacobian_weight=7.0)[0].jacobian_weight for name in rows]
    assert weights == [o["jacobian_weight"] for o in options.values()]
    options = {name: dict(v.options) for name, v in STUDIES["unrolled"][1].items()}
    assert options.pop("full") == {}
    assert all(o == {"unroll": int(name[len("steps_") :])} for name, o in options.items())


ACCURACY, LOSS = Score("accuracy"), Score("loss", lower=True, percent=False)


def reported():
    """Reports of eight runs of two rows, of which one is tested against the other."""
    reports = {}
    for shift, injection in enumerate(INJECTIONS):
        generator = torch.Generator().manual_seed(shift)
        results = [
            {
                "method": row,
                "run": run,
                "scores": {"accuracy": torch.rand((), generator=generator).item(), "loss": run / 7},
                **{"parameters": 5, "epochs": 2, "seconds": 1.0},
            }
            for row in ("full", "no_equilibrium")
            for run in range(8)
        ]
        rows = make_rows(results, [ACCURACY, LOSS], baseline="full")
        told = {
            "table": partial(list, rows),
            "scores": [ACCURACY, LOSS],
            "score": ACCURACY,
            "baseline": "full",
        }
        reports[injection] = SimpleNamespace(**told, results=results)
    return reports


def values_of(results, row, score="accuracy"):
    return [r["scores"][score] for r in results if r["method"] == row]


def half_width(values):
    return stats.t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5


def test_the_csv_holds_mean_spread_interval_and_difference_of_the_runs():
    reports = reported()
    lines = list(csv.DictReader(numbers(reports).splitlines()))
    assert len(lines) == 2 * 2 * 2
    for line in lines:
        results = reports[line["injection"]].results
        values = values_of(results, line["row"], line["score"])
        half = half_width(values)
        want = [fmean(values), stdev(values), fmean(values) - half, fmean(values) + half]
        got = [float(line[key]) for key in ("mean", "sd", "low", "high")]
        assert got == pytest.approx(want) and line["runs"] == "8"
        if (line["row"], line["score"]) == ("no_equilibrium", "accuracy"):
            pairs = zip(values, values_of(results, "full"), strict=True)
            changes = [a - b for a, b in pairs]
            want = [fmean(changes), fmean(changes) - half_width(changes)]
            want += [fmean(changes) + half_width(changes), stats.ttest_1samp(changes, 0).pvalue]
            keys = "difference", "difference_low", "difference_high", "p"
            assert [float(line[key]) for key in keys] == pytest.approx(want)
        else:
            assert line["difference"] == line["p"] == ""


def test_the_table_has_a_line_for_each_injection_and_row_in_the_studys_order():
    reports = reported()
    (table,) = summary("parts", reports).tables
    heads = [column.name for column in table.columns]
    assert heads[:6] == ["injection", "row", "f_theta", "f_fuse", "DEQ", "gate"]
    order = [name for name in PARTS if name in ("full", "no_equilibrium")]
    assert [list(line[:2]) for line in table.rows] == [
        [i, name] for i in INJECTIONS for name in order
    ]
    for line in table.rows:
        assert list(line[2:6]) == marks(PARTS[line[1]])
        values = values_of(reports[line[0]].results, line[1])
        cell = table.cell(f"{line[0]}, {line[1]}", "accuracy")
        assert (cell.mean, cell.sd) == pytest.approx((fmean(values), stdev(values)))


def test_the_picture_shows_scores_from_zero_and_differences_around_it():
    pytest.importorskip("matplotlib")
    reports = reported()
    axes = draw("parts", reports)["parts"].axes
    names = [name for name in PARTS if name in ("full", "no_equilibrium")]
    for at, (injection, report) in enumerate(reports.items()):
        scores, differences = axes[at], axes[2 + at]
        assert scores.get_title("left") == f"{injection} injection: scores"
        assert differences.get_title("left") == f"{injection} injection: minus full"
        assert scores.get_xlim() == (0, 100) and sum(differences.get_xlim()) == 0
        assert [label.get_text() for label in scores.get_yticklabels()] == names
        values = [values_of(report.results, name) for name in names]
        assert_drawn(scores, dict(enumerate(values)))
        changes = [a - b for a, b in zip(values[0], values[1], strict=True)]
        assert names[1] == "full"
        assert_drawn(differences, {0: changes})


def assert_drawn(axes, values):
    """Every row's mean and interval are drawn, in percent."""
    for number, (at, row) in enumerate(values.items()):
        mean, half = fmean(row), half_width(row)
        interval, marker = axes.lines[2 * number : 2 * number + 2]
        bounds = [100 * max(mean - half, -1), 100 * min(mean + half, 1)]
        assert list(interval.get_xdata()) == pytest.approx(bounds)
        assert list(marker.get_xdata()) == pytest.approx([100 * mean])
        assert set(interval.get_ydata()) == set(marker.get_ydata()) == {at}


def test_no_row_is_called_after_what_it_has_and_others_lack():
    assert not OLD.keys() & PARTS.keys() and set(OLD.values()) <= PARTS.keys()
    for name, variant in rows("parts").items():
        off = {key.partition(".")[2] for key, value in variant.options.items() if value is False}
        assert {f"no_{part}" for part in off} <= {name}
