"""MCAN and Mutan as recipes: published training, any fusion, one modality; on small files."""

from types import SimpleNamespace

import pytest
import torch

from deq_fusion.examples.vqa.recipe import recipe as vqa
from deq_fusion.examples.vqa.train import main
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.objective_functions.answers import sampled_answer_loss, soft_answer_loss
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.single_run import build_model
from unit_tests.examples import test_recipes

param = pytest.mark.parametrize
questions, pictures = test_recipes.questions, test_recipes.pictures  # its fixtures
called, small = test_recipes.called, test_recipes.small
HOSTS = ["mcan", "mutan", "mutan_att"]
hosts = param("host", HOSTS)
WORDS, REGION, ANSWERS = 50, 12, 7


@pytest.fixture
def folder(tmp_path):
    """A folder of which nothing is read."""
    (tmp_path / "features").mkdir()
    return tmp_path


def settings(host, *more):
    given = [f"host={host}", "size=tiny", "batch_size=16", *more]
    return [word for setting in given for word in ("--set", setting)]


def loader(views=("question", "image")):
    """Of data of which the sizes alone are there."""
    data = SimpleNamespace(words=WORDS, widths={"image": REGION}, answers=range(ANSWERS))
    return SimpleNamespace(dataset=SimpleNamespace(views=views, dataset=data))


def built(recipe, name, *views):
    """The recipe's model around a fusion, and the fusion."""
    return build_model(Method(name, recipe, FUSIONS[name]), loader(*views))


def size_of(model):
    return sum(p.numel() for p in model.parameters())


@hosts
@param("fusion", ["deq", "sum", "mutan"])
def test_every_host_takes_every_fusion(pictures, host, fusion, capsys):
    result = called(main, pictures, "--fusion", fusion, *settings(host))
    assert result["epochs"] == 1
    assert f"questions, {host} tiny: {fusion}, seed 0" in capsys.readouterr().out
    assert ("solver_steps" in result) == (fusion == "deq")


@hosts
def test_colours_are_learnt_from_pictures(pictures, host):
    result = called(main, pictures, *settings(host, "lr=0.003"), "--epochs", "8")
    assert result["scores"]["accuracy"] > 0.7  # chance is a third


@hosts
def test_each_modality_alone_is_a_model(pictures, host):
    alone = called(main, pictures, "--unimodal", *settings(host))
    assert list(alone) == ["question", "image"]
    recipe = small(vqa, pictures, host=host, size="tiny")
    both, _ = build_model(Method("sum", recipe, FUSIONS["sum"]), recipe.loaders(0)[0])
    assert all(result["parameters"] < size_of(both) for result in alone.values())


@hosts
def test_without_images_the_question_alone_is_read(questions, host):
    assert small(vqa, questions, host=host).modalities == ("question",)
    result = called(main, questions, *settings(host))
    assert result["solver_converged"] > 0.9


@param("host", HOSTS[1:])
def test_mutans_fusion_needs_two(questions, host, capsys):
    with pytest.raises(SystemExit):
        called(main, questions, "--fusion", "mutan", *settings(host))
    assert "mutan takes 2 or more modalities, and there is 1" in capsys.readouterr().err


def mcan_by_hand(hidden, out):
    attention, forward, norm = 4 * (hidden + 1) * hidden, (8 * hidden + 5) * hidden, 2 * hidden
    layers = 6 * (3 * attention + 2 * forward + 5 * norm)
    flattening = (hidden + 1) * 512 + 513 + (hidden + 1) * out
    question = 300 * WORDS + 4 * hidden * (300 + hidden + 2)
    image = (REGION + 1) * hidden
    return question + image + layers + 2 * flattening + 2 * out + (out + 1) * ANSWERS


QUESTION = 620 * WORDS + 3 * 2400 * (620 + 1 + 2400)  # three gates, biases of the input alone
ATTENTION = 310 * (REGION + 1) + 310 * 2401 + 2 * 2550 * 311 + 2 * 511  # 2550 = 5 * 510
EMBEDDED = 2 * 310 * (REGION + 1) + 310 * 2401
MUTAN = 360 * 2401 + 360 * (REGION + 1) + 2 * 3600 * 361


@param(
    "host, size, fusion, expected",
    [
        ("mcan", "small", "sum", mcan_by_hand(512, 1024)),
        ("mcan", "large", "sum", mcan_by_hand(1024, 2048)),
        ("mutan", "published", "mutan", QUESTION + MUTAN + 361 * ANSWERS),
        (
            "mutan_att",
            "published",
            "mutan",
            QUESTION + ATTENTION + EMBEDDED + 2550 * 621 + 2550 * 311 + 511 * ANSWERS,
        ),
    ],
)
def test_published_sizes(folder, host, size, fusion, expected):
    with torch.device("meta"):
        assert size_of(built(small(vqa, folder, host=host, size=size), fusion)[0]) == expected


@param(
    "host, dims, dim",
    [
        ("mcan", [1024, 1024], 1024),
        ("mutan", [360, 360], 360),
        ("mutan_att", [310, 620], 510),
    ],
)
def test_the_published_slots_take_what_must_divide_their_width(folder, host, dims, dim):
    recipe, seen = small(vqa, folder, host=host), []

    def fusion(*asked):
        seen.append(asked)
        return torch.nn.Identity(), asked[1]

    with torch.device("meta"):
        recipe.build(fusion, loader())
    assert seen == [(dims, dim, ANSWERS)]
    if host != "mcan":  # a power of two
        for name in ("deq", "deq_paper", "attention", "nl_gate"):
            assert FUSIONS[name](dims, dim, **recipe.fusion_options.get(name, {}))[1] == dim


@hosts
def test_the_fusion_gets_the_question_first(folder, host):
    recipe, seen = small(vqa, folder, host=host, size="tiny"), []
    model, (fusion,) = built(recipe, "sum")
    fusion.register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    question, image = torch.randint(1, WORDS, (2, 4)), torch.randn(2, 5, REGION)
    model.eval()([question, image])
    model([question, image + 1])
    first, image_first, second, image_second = seen
    torch.testing.assert_close(first, second)
    assert not torch.allclose(image_first, image_second)


@hosts
def test_modalities_in_another_order_are_refused(folder, host):
    with pytest.raises(ValueError, match=r"got modalities \['image', 'question'\]; give"):
        built(small(vqa, folder, host=host), "sum", ("image", "question"))


@param("size, rate, accumulate", [("small", 1e-4, 1), ("large", 5e-5, 2), ("tiny", 5e-4, 1)])
def test_mcan_is_trained_as_published(folder, size, rate, accumulate):
    recipe = small(vqa, folder, host="mcan", size=size)
    optimizer = recipe.optimizer([torch.nn.Parameter(torch.ones(2))])
    assert type(optimizer) is torch.optim.Adam
    defaults = optimizer.defaults
    assert (defaults["betas"], defaults["eps"]) == ((0.9, 0.98), 1e-9)
    plan, rates = recipe.scheduler(optimizer), []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"] / rate)
        optimizer.step()
        plan.step()
    assert rates == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 7, 0.2, 0.2, 0.04])
    assert recipe.objective is soft_answer_loss and recipe.accumulate == accumulate
    assert vqa(folder, host="mcan", size=size).epochs == 13
    assert not recipe.load.args[1]["drop_unanswerable"]


def test_a_step_of_mcan_large_is_two_batches(pictures):
    for size, questions in (("small", 54), ("large", 32)):  # of 54 to train on
        train, _, _ = small(vqa, pictures, host="mcan", size=size).loaders(0)
        assert len(next(iter(train))[0]) == questions
    with pytest.raises(ValueError, match="batch_size must be a multiple of 2, .*, got 5"):
        small(vqa, pictures, host="mcan", size="large", batch_size=5)


@param("host, batch", [("mutan", 512), ("mutan_att", 128)])
def test_mutan_is_trained_as_published(pictures, host, batch):
    recipe = vqa(pictures, host=host)
    optimizer = recipe.optimizer([torch.nn.Parameter(torch.ones(2))])
    assert type(optimizer) is torch.optim.Adam and optimizer.defaults["lr"] == 1e-4
    assert recipe.scheduler is None and recipe.accumulate == 1 and recipe.epochs == 100
    assert recipe.load.args[1]["batch_size"] == batch
    assert recipe.objective is sampled_answer_loss
    assert recipe.load.args[1]["drop_unanswerable"]
    for tokenise, length in ((None, 26), ("mcan", 14)):
        data = vqa(pictures, host=host, tokenise=tokenise).loaders(0)[0].dataset.dataset
        assert not data.answers.normalised and data.widths["question"] == length


def test_settings_that_do_not_fit_are_refused(folder):
    for given, message in (
        (
            {"host": "mfb"},
            r"host must be one of \['bag', 'mcan', 'mutan', 'mutan_att'\], got 'mfb'",
        ),
        ({"host": "mcan", "size": "published"}, "size of mcan must be one of .*'large', 'tiny'"),
        ({"host": "mutan", "size": "small"}, r"size of mutan must be one of \['published', 'tiny'"),
        ({"host": "mcan", "width": 8}, "width is the bag's, got 8 for mcan; give size"),
        ({"size": "tiny"}, r"size is of the hosts \['mcan', .*got 'tiny' for the bag"),
    ):
        with pytest.raises(ValueError, match=message):
            small(vqa, folder, **given)


def test_the_bag_is_described_as_before(pictures):
    recipe = small(vqa, pictures)
    described = recipe.shared_settings()
    assert described["name"] == "'questions'" and "protocol" not in described["load"]
    assert described["build"] == "deq_fusion.examples.vqa.recipe.build(256)"
    assert described["optimizer"] == "torch.optim.adam.Adam(lr=0.0005)"
    assert recipe.load.args[1]["tokenise"] == "mcan" and recipe.load.args[1]["batch_size"] == 64


def test_what_describes_a_host_is_the_same_in_every_process(folder):
    for host in HOSTS:
        settings = small(vqa, folder, host=host).shared_settings()
        assert not [text for text in settings.values() if " at 0x" in text]
