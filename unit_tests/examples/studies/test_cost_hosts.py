"""The benchmark of the hosts measures each with its own fusion and with DEQ fusion."""

import pytest
import torch

from deq_fusion.examples.studies.cost import hosts
from deq_fusion.examples.studies.tables import read_tables
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.unimodals.pretrained import BertEncoder


@pytest.fixture
def published():
    """Keeps `small` from the hosts."""


@pytest.fixture(autouse=True)
def small(monkeypatch, request):
    if "published" in request.fixturenames:
        return
    bert = BertEncoder(None, vocabulary=hosts.PIECES, width=8, length=64, pooled=False)
    monkeypatch.setattr(hosts, "_bert", lambda: bert)
    for size in ("small", "large"):
        monkeypatch.setitem(
            hosts.PRESETS, size, {"hidden": 8, "out": 16, "layers": 1, "heads": 2, "embedding": 4}
        )
    monkeypatch.setattr(hosts, "REGION_DIM", 12)
    monkeypatch.setattr(hosts, "WORDS", 9)


SLOW = "mutan", "mutan_att"  # whose question encoders are as large as published


@pytest.mark.parametrize(
    "host",
    [pytest.param(h, marks=pytest.mark.slow) if h in SLOW else h for h in hosts.CASES],
)
def test_only_the_fusion_differs_and_both_steps_train_the_weights(host):
    case = hosts.CASES[host]
    data = case.make(3)
    models = [case.build(slot) for slot in (case.own, hosts.deq_slot(case))]
    outside = [{n for n, _ in m.named_parameters() if ".fusion" not in f".{n}"} for m in models]
    differing = outside[0] ^ outside[1]
    assert not differing and isinstance(models[1].fusion, DEQFusion)
    for model in models:
        before = [p.detach().clone() for p in model.parameters()]
        hosts.make_step(model, case.objective, data, "cpu")()
        moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
        assert sum(moved) > 0.8 * len(moved)  # not all: ReLUs are shut, and a bias has no say


def test_the_hosts_have_their_published_sizes(published):
    """The counts of unit_tests/unimodals and test_brca_published, and BERT-base's by hand."""
    d, layers = 768, 12
    block = 4 * (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d + 4 * d
    bert = (30522 + 512 + 2) * d + 2 * d + layers * block
    counts = {
        "mm_dynamics_1000": 4_794_535,
        "cm_bert": bert + 30 * (d + 5) + (d + 1) * (d + 1) + 2 * d + 3,
        "mcan_small": 51_640_891 + 300 * hosts.WORDS,
        "mcan_large": 195_551_291 + 300 * hosts.WORDS,
        "mutan": 27_294_400 + 620 * (hosts.WORDS - 1000),
        "mutan_att": 30_751_112 + 620 * (hosts.WORDS - 1000),
    }
    for name, expected in counts.items():
        with torch.device("meta"):
            model = hosts.CASES[name].build(hosts.CASES[name].own)
        assert sum(p.numel() for p in model.parameters()) == expected, name


def test_the_share_is_what_the_published_step_does_not_take():
    result = hosts.Result("mcan_large", 2_500_000, 8, own=75.0, deq=100.0, steps=3.0, target=0.2)
    assert result.share == 0.25
    times = [75.0, 100.0, 100 / 75, 0.25, 3.0]
    assert result.to_row() == ["mcan_large", 2.5, 8, *times, "<= 20%: missed"]
    assert result._replace(target=0.25).to_row()[-1] == "<= 25%: met"
    assert result._replace(target=None).to_row()[-1] is None


def test_the_table_has_a_row_for_every_model_asked_for(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    before, asked = torch.get_num_threads(), ["--output", str(tmp_path), "--batch", "2"]
    told = hosts.main(["--hosts", "cm_bert", "mcan_small", "--most", "1", *asked])
    out, err = capsys.readouterr()
    (table,) = told.tables
    assert table.row_names == ["cm_bert", "mcan_small"] and str(told) in out
    assert read_tables(tmp_path / "tables.json")[1] == {"hosts": table}
    (axes,) = hosts.draw([hosts.Result("a", 1, 2, 75.0, 100.0, 3.0, None)])["hosts"].axes
    assert axes.get_xlim() == (0, 100) and axes.patches[0].get_width() == 25
    assert "mcan_small" in err and torch.get_num_threads() == before


def test_a_batch_of_fewer_than_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        hosts.main(["--batch", "-1"])
    assert "--batch" in capsys.readouterr().err
