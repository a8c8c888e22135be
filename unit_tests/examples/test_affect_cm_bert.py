"""CM-BERT's recipe on small files of the real layouts: what is fitted, on train alone; what is
padded, without effect; and that every slot trains."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.datasets.affect import transcripts
from deq_fusion.datasets.affect.utterance import FILE, split_rows
from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.examples.affect import cm_bert, train
from deq_fusion.examples.affect.recipe import recipe as mosi
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.methods import Method, only, refusal
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.unimodals.cm_bert import CMBERT, CMBERTPooled
from deq_fusion.unimodals.pretrained import BertEncoder
from unit_tests.real_data import real

VIDEOS, EACH, FEATURES = 14, 3, 7
WORDS = "GOOD BAD FILM VERY NOT STORY ACTING LONG SHORT BORING GREAT MUSIC".split()
param = pytest.mark.parametrize


@pytest.fixture
def arrays():
    """14 videos of 3 utterances, 4 of them test's; transcripts of one to nine words."""
    rng = np.random.default_rng(0)
    videos = rng.permutation(np.repeat(np.arange(VIDEOS), EACH))
    rows = len(videos)
    scales = 10.0 ** np.arange(FEATURES)
    return {
        "text": rng.normal(size=(rows, 4)).astype("f4"),
        "audio": (rng.normal(size=(rows, FEATURES)) * scales + scales).astype("f4"),
        "vision": rng.normal(size=(rows, 4)).astype("f4"),
        "labels": rng.uniform(-3, 3, rows).astype("f4"),
        "id": np.array([f"{video}_{row}" for row, video in enumerate(videos)]),
        "video_id": np.array([f"video{video}" for video in videos]),
        "split": np.where(videos < 4, "test", "train"),
        "transcript": np.array([" ".join(rng.choice(WORDS, rng.integers(1, 10))) for _ in videos]),
    }


@pytest.fixture
def write(tmp_path, arrays):
    """Writes the arrays, with changes, and returns the folder; None leaves an array out."""

    def write(**changes):
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        np.savez(tmp_path / FILE, **kept)
        return tmp_path

    return write


@pytest.fixture
def tables(tmp_path):
    """CM-BERT's own files: tables, and a pickle of audio."""
    folder, rng, audio = tmp_path / "tables", np.random.default_rng(1), []
    folder.mkdir()
    for name, count in (("train", 30), ("dev", 8), ("test", 8)):
        lines = [
            f"{' '.join(rng.choice(WORDS, 4))}\t{rng.uniform(-3, 3):.2f}" for _ in range(count)
        ]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
        rows = np.zeros((count, 50, 5))
        rows[:, 1:5] = rng.normal(size=(count, 4, 5))
        audio.append(rows)
    (folder / cm_bert.FILES[1]).write_bytes(pickle.dumps(tuple(audio), 2))
    return folder


def small(folder, host, **settings):
    return replace(mosi(folder, host=host, **settings), epochs=1)


def train_rows(arrays):
    return split_rows(arrays["video_id"], arrays["split"] == "test")[0]


def pieces(arrays):
    return WordPieces.train(arrays["transcript"][train_rows(arrays)], size=200)


def trained(recipe, name):
    return run_fusion(Method(name, recipe, FUSIONS[name]), 0)


@param("host", cm_bert.HOSTS)
@param("name", ["deq", "weighted_sum", "concat", "late"])
def test_every_slot_trains(write, host, name):
    result = trained(small(write(), host), name)
    assert result["epochs"] == 1 and np.isfinite(result["scores"]["mae"])
    if name == "deq":
        assert result["solver_converged"] > 0.9


@param("host", cm_bert.HOSTS)
def test_the_tables_of_cm_bert_train(tables, host):
    recipe = small(tables, host)
    assert "word-aligned" in recipe.name
    _, audio, _ = recipe.loaders(0)[0].dataset.tensors
    assert not audio[:, 0].any() and audio[:, 1:5].any(dim=2).all() and not audio[:, 5:].any()
    arguments = ["--data-dir", str(tables), "--epochs", "1", "--set", f"host={host}"]
    assert train.main(arguments)["solver_converged"] > 0.9


@param("host", cm_bert.HOSTS)
@param("modality", ["text", "audio"])
def test_a_modality_alone_trains(write, host, modality):
    recipe = small(write(), host).restricted([modality])
    assert np.isfinite(run_fusion(Method(f"only {modality}", recipe, only), 0)["scores"]["mae"])
    assert trained(recipe, "deq")["solver_converged"] > 0.9


@param("host", cm_bert.HOSTS)
def test_every_fusion_of_two_fits_the_slot(write, host):
    recipe = small(write(), host)
    loader = recipe.loaders(0)[1]
    inputs = next(iter(loader))[:-1]
    for name, entry in FUSIONS.items():
        if refusal(entry, recipe):
            continue

        def make(input_dims, dim, outputs, name=name, entry=entry):
            options = dict(recipe.fusion_options.get(name, {}))
            if entry.predicts:
                options |= {"outputs": outputs, "task": recipe.task}
            return entry(input_dims, dim, **options)

        model = recipe.build(make, loader)
        assert isinstance(model, CMBERT if host == "cm_bert" else CMBERTPooled)
        assert model(inputs).shape == (len(inputs[0]), 1), name


def test_audio_is_the_principal_components_of_standardised_train(write, arrays):
    folder, rows = write(), train_rows(arrays)
    known = arrays["audio"].astype(np.float64)
    known = (known - known[rows].mean(0)) / known[rows].std(0)
    values, vectors = np.linalg.eigh(np.cov(known[rows].T))
    expected = known @ vectors[:, ::-1][:, :5]
    for part, chosen in zip(
        transcripts.read_parts(folder).values(),
        split_rows(arrays["video_id"], arrays["split"] == "test"),
        strict=True,
    ):
        found, wanted = part.views["audio"].values[:, 0], expected[chosen]
        signs = np.sign((found * wanted).sum(0))
        np.testing.assert_allclose(found, wanted * signs, atol=1e-4)
        np.testing.assert_array_equal(part.labels[:, 0], arrays["labels"][chosen])
        assert part.texts == arrays["transcript"][chosen].tolist()


def test_audio_stands_at_all_tokens_but_the_ends(write, arrays):
    folder = write()
    loaders = transcripts.get_dataloader(folder, pieces(arrays), length=8)
    parts = transcripts.read_parts(folder)
    for loader, part in zip(loaders, parts.values(), strict=True):
        for tokens, audio, vector in zip(
            *loader.dataset.tensors[:2], part.views["audio"].values, strict=True
        ):
            last = int(tokens.count_nonzero()) - 1
            assert last < 8 and tokens[:1].all() and not tokens[last + 1 :].any()
            assert not audio[0].any() and not audio[last:].any()
            assert (audio[1:last] == torch.from_numpy(vector)).all()


@param("host", cm_bert.HOSTS)
def test_all_is_fitted_on_train_alone(write, arrays, host):
    recipe, rows = small(write(), host), train_rows(arrays)
    before = [x.clone() for x in recipe.loaders(0)[0].dataset.tensors]
    others = np.setdiff1d(np.arange(len(arrays["labels"])), rows)
    audio, texts = arrays["audio"].copy(), arrays["transcript"].copy().astype("U90")
    audio[others] = 1e6
    texts[others] = "UNHEARD WORDS " * 6
    write(audio=audio, transcript=texts)
    for old, new in zip(before, recipe.loaders(0)[0].dataset.tensors, strict=True):
        assert torch.equal(old, new)
    audio[rows[0]], texts[rows[0]] = 1e3, "GOOD"
    write(audio=audio, transcript=texts)
    new = recipe.loaders(0)[0].dataset.tensors
    assert not torch.equal(before[0], new[0]) and not torch.equal(before[1], new[1])


def hosts(length):
    """Both hosts for texts of this length, alike in all parameters."""
    torch.manual_seed(0)
    bert = BertEncoder(vocabulary=200, width=8, layers=1, length=20, pooled=False)
    for fused, make in (([length] * 2, CMBERT), ([8, 30], CMBERTPooled)):
        torch.manual_seed(1)
        name = "weighted_sum" if make is CMBERT else "deq"
        fusion, width = FUSIONS[name](fused, fused[0])
        options = {"length": length} if make is CMBERT else {"fused_dim": width}
        yield make(bert, 5, fusion, **options).eval()


def test_padding_of_a_longer_text_changes_nothing(write, arrays):
    tokeniser = pieces(arrays)

    def predictions(folder, length):
        test = transcripts.get_dataloader(folder, tokeniser, length=length)[2]
        with torch.no_grad():
            return [host(test.dataset.tensors[:2]) for host in hosts(length)]

    short = predictions(write(), 12)
    for longer, known in zip(predictions(write(), 16), short, strict=True):
        torch.testing.assert_close(longer, known, atol=1e-5, rtol=1e-4)
    rows = split_rows(arrays["video_id"], arrays["split"] == "test")[2]
    texts = arrays["transcript"].astype("U200")
    texts[rows[2]] = " ".join(WORDS)
    for mates, known in zip(predictions(write(transcript=texts), 16), short, strict=True):
        kept = torch.arange(len(known)) != 2
        torch.testing.assert_close(mates[kept], known[kept], atol=1e-5, rtol=1e-4)
        assert (mates[2] - known[2]).abs() > 1e-4


def test_audio_alone_is_the_mean_of_its_steps():
    model = cm_bert.AudioAlone(5, only([30], 30)[0], 30).eval()
    audio = torch.randn(2, 6, 5)
    audio[0, 4:] = 0
    audio[1] = 0
    mean = torch.stack([audio[0, :4].mean(0), audio[1, 0]])
    linear = model.regressor[1]
    expected = mean @ model.project_audio.weight.T @ linear.weight.T + linear.bias
    torch.testing.assert_close(model([audio]), expected)
    torch.testing.assert_close(expected[1], linear.bias)  # no audio at all: no error, no NaN


def test_loss_rates_and_plan(write):
    loss = cm_bert.half_squared_error(torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [1.0]]))
    assert float(loss) == pytest.approx((0.5 * 1 + 0.5 * 9) / 2)
    for epochs, wanted in ((3, [5 / 6, 0.5, 1 / 6]), (20, [0.25, 0.75, 0.875, 0.825])):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        plan, rates = cm_bert.warm_up(optimizer, epochs=epochs), []
        for _ in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            plan.step()
        assert rates[: len(wanted)] == pytest.approx(wanted)
        assert min(rates) > 0 and optimizer.param_groups[0]["lr"] == 0


@param("host", cm_bert.HOSTS)
def test_the_fusion_has_the_published_rate(write, host):
    seen = {}

    def analyse(trained, recipe):
        groups = recipe.optimizer(recipe.parameters(trained.model)).param_groups
        rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
        seen.update({n: rates[id(p)] for n, p in trained.model.named_parameters()})
        seen["epoch"] = [v for k, v in trained.history.epochs[0].items() if "learning_rate" in k]

    recipe = replace(small(write(), host), scheduler=None)
    run_fusion(Method("deq", recipe, FUSIONS["deq"]), 0, analyse=analyse)
    small_rate = cm_bert.SMALL_RATE
    assert seen.pop("epoch") == [small_rate, small_rate, 0.01]
    for name, (rate, decay) in seen.items():
        bert = name.startswith(("text.", "regressor."))
        normalised = "bias" in name or "norm" in name.lower()
        if not name.startswith("fusion.") or "bias" in name:
            assert rate == (small_rate if bert or normalised else 0.01), name
            assert decay == (0 if normalised else 0.01), name
    assert (0.01, 0.01) in {v for n, v in seen.items() if n.startswith("fusion.")}


def test_a_recipe_may_give_its_own_groups(write):
    recipe = small(write(), "mlp")
    assert "parameters" not in recipe.settings("concat")
    given = small(write(), "cm_bert")
    assert given.settings("deq")["parameters"] == "deq_fusion.unimodals.cm_bert.parameter_groups"
    assert given.settings("deq") == small(write(), "cm_bert").settings("deq")

    def analyse(trained, recipe):
        rates = [v for k, v in trained.history.epochs[0].items() if "learning_rate" in k]
        return rates, len(list(trained.model.parameters()))

    def groups(model):
        return [{"params": [p], "lr": 0.001 * i} for i, p in enumerate(model.parameters())]

    chosen = replace(recipe, parameters=groups)
    result = run_fusion(Method("deq", chosen, FUSIONS["deq"]), 0, analyse=analyse)
    rates, count = result["analysis"]
    assert rates == pytest.approx([0.001 * i for i in range(count)])


def test_the_linear_floor_is_a_ridge_on_weighted_counts(write):
    train, valid, test = small(write(), "cm_bert").loaders(0)
    known = [
        np.concatenate(x) for x in zip(train.dataset.tensors, valid.dataset.tensors, strict=True)
    ]
    pieces = np.unique(known[0])[1:]  # 0 is padding

    def features(tokens, audio):
        counts = (tokens[:, :, None] == pieces).sum(1) * idf
        counts = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
        return np.hstack([counts, audio.mean(1)])

    frequency = (known[0][:, :, None] == pieces).any(1).sum(0)
    idf = np.log((1 + len(known[0])) / (1 + frequency)) + 1
    x, y = features(*known[:2]), known[2][:, 0]
    centred = x - x.mean(0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(x.shape[1]), centred.T @ (y - y.mean()))
    tokens, audio, _ = (t.numpy() for t in test.dataset.tensors)
    expected = (features(tokens, audio) - x.mean(0)) @ weights + y.mean()
    found = cm_bert.linear_floor([train, valid], test)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)


def test_the_rate_of_the_fusion_is_a_setting(write):
    recipe = small(write(), "cm_bert", fusion_lr=0.002)
    found = run_fusion(Method("deq", recipe, FUSIONS["deq"]), 0, analyse=rates_of)["analysis"]
    whole = small(write(), "cm_bert")
    usual = run_fusion(Method("deq", whole, FUSIONS["deq"]), 0, analyse=rates_of)["analysis"]
    assert found[:2] == usual[:2] and found[2] == pytest.approx(usual[2] / 5)


def rates_of(trained, recipe):
    return [v for k, v in trained.history.epochs[0].items() if "learning_rate" in k]


def test_local_weights_take_the_published_plan(write, arrays, tmp_path):
    weights = tmp_path / "bert"
    tokeniser = pieces(arrays)
    bert = BertEncoder(vocabulary=len(tokeniser), width=8, layers=1, length=50, pooled=False)
    bert.model.save_pretrained(weights)
    tokeniser.save(weights)
    recipe = mosi(write(), host="cm_bert", text_weights=str(weights))
    assert (recipe.epochs, recipe.patience) == (3, None)
    assert recipe.optimizer.keywords == {"lr": 2e-5, "fusion_lr": 0.01}
    assert small(write(), "cm_bert").patience == cm_bert.SMALL_PATIENCE
    assert small(write(), "cm_bert", patience=2).patience == 2
    assert recipe.name != small(write(), "cm_bert").name
    train = recipe.loaders(0)[0]
    model = recipe.build(lambda dims, dim, outputs: FUSIONS["weighted_sum"](dims, dim), train)
    for name, value in model.text.model.state_dict().items():
        torch.testing.assert_close(value, bert.model.state_dict()[name])
    expected = tokeniser.encode(arrays["transcript"][train_rows(arrays)], length=50)
    assert (train.dataset.tensors[0][:, : expected.shape[1]].numpy() == expected).all()


@pytest.mark.slow
def test_a_small_batch_is_learnt_by_heart(write):
    recipe = small(write(), "cm_bert")
    *inputs, truth = (x[:4] for x in recipe.loaders(0)[0].dataset.tensors)
    deq = partial(FUSIONS["deq"], **recipe.fusion_options["deq"])
    model = recipe.build(lambda dims, dim, outputs: deq(dims, dim), recipe.loaders(0)[0]).eval()
    optimizer = recipe.optimizer(recipe.parameters(model), lr=5e-4)
    for _ in range(40):
        optimizer.zero_grad()
        loss = recipe.objective(model(inputs), truth)
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * truth.var() / 2


def test_what_does_not_fit_is_said(write, arrays, tables):
    with pytest.raises(ValueError, match=r"host must be one of \['mlp'.*got 'bert'"):
        small(write(), "bert")
    with pytest.raises(ValueError, match="text_weights and fusion_lr are CM-BERT's.*host=cm_bert"):
        small(write(), "mlp", text_weights="bert")
    with pytest.raises(ValueError, match="must hold one of mosi_utterance.npz, MOSI_cmu.*got none"):
        small(tables.parent / "nowhere", "cm_bert")
    with pytest.raises(ValueError, match="text, then audio, got audio, text"):
        small(write(), "cm_bert").restricted(["audio", "text"]).loaders(0)
    with pytest.raises(
        ValueError, match="must hold the array 'transcript' once.*get it again, with transcript"
    ):
        transcripts.read_parts(write(transcript=None))
    with pytest.raises(ValueError, match="transcript holds Python objects"):
        transcripts.read_parts(write(transcript=arrays["transcript"].astype(object)))
    with pytest.raises(
        ValueError, match="transcript in .* must be a text for each sample, but row 0 has 0.0"
    ):
        transcripts.read_parts(write(transcript=np.zeros(42)))
    for wrong in (0, 8):
        with pytest.raises(ValueError, match=f"audio_dim must be from 1 to 7.*got {wrong}"):
            transcripts.read_parts(write(), audio_dim=wrong)


@pytest.mark.slow
def test_the_real_utterances():
    folder = real(f"mosi/{FILE}").parent
    recipe = small(folder, "cm_bert")
    train, valid, test = recipe.loaders(0)
    assert len(train.dataset) + len(valid.dataset) == 1447 and len(test.dataset) == 752
    tokens, audio, _ = test.dataset.tensors
    assert audio.shape == (752, 50, 5) and int(tokens.max()) < cm_bert.VOCABULARY
    assert (tokens == 1).sum() < 0.02 * tokens.count_nonzero()  # words that no piece writes
    few = [next(iter(train)) for _ in range(3)]
    recipe = replace(
        recipe, load=lambda run, modalities: (few, few, few), build=partial(built, train)
    )
    result = trained(recipe, "deq")
    assert result["solver_converged"] > 0.9 and np.isfinite(result["scores"]["mae"])


def built(train, fusion, few):
    return cm_bert.build("cm_bert", None, fusion, train)


@pytest.mark.parametrize(
    "settings", [{"fusion_lr": -1.0}, {"fusion_lr": float("nan")}, {"patience": -2}]
)
@pytest.mark.parametrize("host", ["mlp", "cm_bert"])
def test_settings_that_make_no_sense_are_answered(write, settings, host):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, or left out"):
        mosi(write(), host=host, **settings)
