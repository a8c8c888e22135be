"""MCAN against a second writing of it, sample by sample and without any padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.unimodals.mcan import MCAN, PRESETS

param = pytest.mark.parametrize

WORDS, REGION, ANSWERS, HIDDEN, OUT, HEADS = 9, 6, 5, 8, 12, 2
SMALL = {"hidden": HIDDEN, "out": OUT, "layers": 2, "heads": HEADS, "embedding": 7}
QUESTION = torch.tensor([[3, 1, 4, 0, 0], [2, 0, 0, 0, 0], [5, 6, 2, 8, 3]])
# the biases of a softmax over tokens: what they add to every score alike is lost
WITHOUT_EFFECT = ".key.bias", ".score.3.bias"


class Sum(nn.Module):
    def forward(self, features):
        return sum(features)


def make(fusion=None, width=OUT, **options):
    options = {"words": WORDS, "region_dim": REGION, **SMALL, **options}
    return MCAN(Sum() if fusion is None else fusion, width, ANSWERS, **options)


def make_image(lengths=(2, 4, 1), most=4):
    image = torch.randn(len(lengths), most, REGION)
    for row, length in zip(image, lengths, strict=True):
        row[length:] = 0
    return image


def lstm_states(p, words):
    h, c, found = torch.zeros(HIDDEN), torch.zeros(HIDDEN), []
    lstm = "branches.question.embed.lstm"
    for word in p["branches.question.embed.embedding.weight"][words]:
        gates = p[f"{lstm}.weight_ih_l0"] @ word + p[f"{lstm}.bias_ih_l0"]
        i, f, g, o = (gates + p[f"{lstm}.weight_hh_l0"] @ h + p[f"{lstm}.bias_hh_l0"]).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        found.append(h)
    return torch.stack(found)


def second_writing(p, question, image):
    """The logits of one sample, from the parameters by name; words and regions are all there."""

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def mlp(x, name):
        return linear(linear(x, f"{name}.0").clamp(min=0), f"{name}.3")

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        std = (x.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)).sqrt()
        return p[f"{name}.gain"] * x / (std + 1e-6) + p[f"{name}.bias"]

    def attend(x, y, name):
        q, k, v = linear(x, f"{name}.query"), linear(y, f"{name}.key"), linear(y, f"{name}.value")
        heads = []
        for c in torch.arange(HIDDEN).chunk(HEADS):
            scores = (q[:, c] @ k[:, c].T / len(c) ** 0.5).exp()
            heads.append(scores @ v[:, c] / scores.sum(1, keepdim=True))
        return linear(torch.cat(heads, 1), f"{name}.merge")

    def flatten(x, name):
        weights = mlp(x, f"{name}.score").exp()
        return linear((weights * x).sum(0) / weights.sum(), f"{name}.merge")

    x, y = linear(image, "branches.image.embed.linear"), lstm_states(p, question)
    for layer in range(SMALL["layers"]):  # the whole encoder first
        name = f"branches.question.layers.{layer}"
        y = norm(y + attend(y, y, f"{name}.attentions.0"), f"{name}.norms.0")
        y = norm(y + mlp(y, f"{name}.feed_forward"), f"{name}.norms.1")
    for layer in range(SMALL["layers"]):
        name = f"branches.image.layers.{layer}"
        x = norm(x + attend(x, x, f"{name}.attentions.0"), f"{name}.norms.0")
        x = norm(x + attend(x, y, f"{name}.attentions.1"), f"{name}.norms.1")
        x = norm(x + mlp(x, f"{name}.feed_forward"), f"{name}.norms.2")
    fused = flatten(y, "branches.question.flatten") + flatten(x, "branches.image.flatten")
    return linear(norm(fused, "head.0"), "head.1")


@pytest.mark.usefixtures("double")
def test_the_published_model_is_its_equations():
    model, image = make().eval(), make_image()
    for value in model.parameters():
        nn.init.normal_(value, std=0.5)  # the vector of padding and the biases of norms, too
    logits, values = model([QUESTION, image]), model.state_dict()
    for row, regions, result in zip(QUESTION, image, logits, strict=True):
        there = regions[regions.abs().sum(1) > 0]
        torch.testing.assert_close(result, second_writing(values, row[row > 0], there))


def count_by_hand(h, o, words, answers, regions):
    attention, feed_forward, norm = 4 * (h * h + h), (h * 4 * h + 4 * h) + (4 * h * h + h), 2 * h
    sa = attention + feed_forward + 2 * norm
    sga = 2 * attention + feed_forward + 3 * norm
    flattening = (h * 512 + 512) + (512 + 1) + (h * o + o)
    question = 300 * words + 4 * h * (300 + h) + 2 * 4 * h
    image = regions * h + h
    return question + image + 6 * (sa + sga) + 2 * flattening + 2 * o + (o * answers + answers)


@param("name, h, o, total", [("small", 512, 1024, 51_640_891), ("large", 1024, 2048, 195_551_291)])
def test_the_sizes_are_the_published_ones(name, h, o, total):
    with torch.device("meta"):
        model = MCAN(Sum(), o, 3129, words=10_000, region_dim=2048, **PRESETS[name])
    count = sum(p.numel() for p in model.parameters())
    assert count == count_by_hand(h, o, 10_000, 3129, 2048) == total + 300 * 10_000


def test_longer_padding_batch_mates_and_the_vector_of_padding_change_nothing():
    model, image = make().eval(), make_image()
    expected = model([QUESTION, image])
    longer = F.pad(QUESTION, (0, 3)), F.pad(image, (0, 0, 0, 2))
    torch.testing.assert_close(model(longer), expected)
    torch.testing.assert_close(model([QUESTION[:1, :3], image[:1, :2]]), expected[:1])
    with torch.no_grad():
        model.branches["question"].embed.embedding.weight[0] = 100.0
    torch.testing.assert_close(model([QUESTION, image]), expected)


def test_without_words_or_regions_one_token_of_padding_is_read():
    model, image = make().eval(), make_image(lengths=(0, 4))
    question = torch.tensor([[1, 2, 3], [0, 0, 0]])
    logits = model([question, image])
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(model([question[:1], image[:1, :1]]), logits[:1])
    torch.testing.assert_close(model([question[1:, :1], image[1:]]), logits[1:])


@param("present", [{}, {"region_dim": None}, {"words": None}], ids=["both", "question", "image"])
@pytest.mark.usefixtures("double")
def test_every_parameter_gets_a_gradient(present):
    model = make(dropout=0.0, **present)
    inputs = {"words": QUESTION, "region_dim": make_image()}
    logits = model([x for option, x in inputs.items() if option not in present])
    assert logits.shape == (3, ANSWERS)
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in model.named_parameters():
        largest = parameter.grad.abs().max()
        assert largest < 1e-12 if name.endswith(WITHOUT_EFFECT) else largest > 1e-7, name


def test_each_modality_alone_is_read():
    question, image = make(region_dim=None).eval(), make(words=None).eval()
    assert list(question.branches) == ["question"] and list(image.branches) == ["image"]
    first, second = question([QUESTION]), image([make_image()])
    assert (first[0] - first[1]).abs().max() > 1e-3 and (second[0] - second[1]).abs().max() > 1e-3


@param("name", ["concat", "weighted_sum", "deq", "deq_paper", "gmu", "late"])
def test_any_fusion_fits_the_slot(name):
    torch.manual_seed(1)
    entry, options = FUSIONS[name], {}
    if entry.predicts:
        options = {"outputs": ANSWERS, "task": "multilabel"}
    fusion, width = entry([OUT, OUT], OUT, **options)
    model = make(fusion, width, dropout=0.0)
    logits = model([QUESTION, make_image()])
    assert logits.shape == (3, ANSWERS) and isinstance(model.head, nn.Identity) == (width is None)
    (logits * torch.randn_like(logits)).sum().backward()
    reached = [p for p in model.branches.parameters() if p.grad is not None and p.grad.any()]
    assert len(reached) > 0.9 * len(list(model.branches.parameters()))
    assert all(p.grad.abs().max() > 0 for p in fusion.parameters())


def test_the_fusion_gets_the_question_first():
    seen = []

    class Second(nn.Module):
        def forward(self, features):
            seen.append([x.shape for x in features])
            return features[1]

    model = make(Second(), dropout=0.0)
    model([QUESTION, make_image()]).square().sum().backward()
    assert seen == [[(3, OUT), (3, OUT)]]
    # an image reads the question through its layers alone
    branches = model.branches
    assert branches["question"].flatten.merge.weight.grad is None
    assert branches["question"].layers[1].attentions[0].query.weight.grad.any()
    assert branches["image"].flatten.merge.weight.grad.any()


@param("name", ["sum", "deq"])
def test_a_small_batch_is_learnt(name):
    sizes = {"hidden": 16, "out": 32, "layers": 1, "dropout": 0.0}
    fusion = Sum() if name == "sum" else FUSIONS[name]([32, 32], 32)[0]
    model = make(fusion, 32, **sizes)
    inputs = [torch.randint(1, WORDS, (10, 5)), torch.randn(10, 4, REGION)]
    truth = torch.arange(10) % ANSWERS
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        logits = model(inputs)
        loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(truth, ANSWERS).float())
        if loss < 0.1:
            break
        optimizer.zero_grad()
        (loss * logits.numel()).backward()  # the published loss is the sum
        optimizer.step()
    assert loss < 0.1  # 0.5 without a look at the inputs
    torch.testing.assert_close(logits.argmax(1), truth, rtol=0, atol=0)


def test_vectors_of_words_are_where_training_starts():
    vectors = torch.randn(WORDS, SMALL["embedding"])
    embedding = make(vectors=vectors).branches["question"].embed.embedding
    torch.testing.assert_close(embedding.weight.data, vectors)
    assert embedding.weight.requires_grad and embedding.weight.data_ptr() != vectors.data_ptr()


def test_mixed_precision_agrees():
    model, inputs = make().eval(), [QUESTION, make_image()]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(inputs)
    torch.testing.assert_close(logits.float(), model(inputs), rtol=0.1, atol=0.1)


def test_messages_say_what_must_hold():
    image = make_image()
    with pytest.raises(ValueError, match="words or region_dim must be given"):
        make(words=None, region_dim=None)
    with pytest.raises(ValueError, match="heads must divide"):
        make(heads=3)
    with pytest.raises(ValueError, match=r"vectors must have .* \(9, 7\), got \(9, 300\)"):
        make(vectors=torch.zeros(WORDS, 300))
    model = make()
    with pytest.raises(ValueError, match=r"\['question', 'image'\], .* got 1"):
        model([QUESTION])
    with pytest.raises(ValueError, match=r"question must be \(batch, length\)"):
        model([QUESTION[0], image])
    with pytest.raises(TypeError, match="question must be whole numbers .* torch.float32"):
        model([QUESTION.float(), image])
    with pytest.raises(ValueError, match=r"image must be \(batch, regions, 6\), got \(3, 4, 5\)"):
        model([QUESTION, image[:, :, :5]])
