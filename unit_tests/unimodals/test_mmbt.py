"""MMBT against BERT's formula, written out for each sample without padding, on its published
sequence."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from deq_fusion.unimodals.mmbt import GRIDS, MMBT, ImageRegions, rounds
from deq_fusion.unimodals.pretrained import BertEncoder, ResNetEncoder

pytest.importorskip("transformers")

WIDTH, HEADS, WIDE, OUTPUTS = 12, 3, 5, 2
CLS, SEP = 2, 3
TOKENS = torch.tensor([[CLS, 7, 9, 4, SEP, 0], [CLS, SEP, 0, 0, 0, 0], [CLS, 5, 8, 6, 4, SEP]])


def bert(**options):
    sizes = {"vocabulary": 12, "width": WIDTH, "heads": HEADS, "length": 9}
    return BertEncoder(**sizes | options)


def make(image=None):
    return MMBT(bert(), image or nn.Identity(), WIDE, OUTPUTS)


def perturb(model):
    """Moves all parameters off zero and one, where an untrained BERT hardly looks at its input."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def regions(count=4):
    return torch.randn(len(TOKENS), count, WIDE)


def affine(layer, x):
    return x @ layer.weight.T + layer.bias


def normed(layer, x):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + layer.eps).sqrt()
    return layer.weight * x + layer.bias


def bert_layer(layer, x):
    """One layer for one sample, (tokens, width): head by head, nothing masked."""
    own, heads, size = layer.attention.self, [], WIDTH // HEADS
    q, k, v = (affine(m, x) for m in (own.query, own.key, own.value))
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        logits = q[:, part] @ k[:, part].T / math.sqrt(size)
        heads.append(torch.softmax(logits, dim=1) @ v[:, part])
    output = layer.attention.output
    x = normed(output.LayerNorm, x + affine(output.dense, torch.cat(heads, dim=1)))
    inner = affine(layer.intermediate.dense, x)
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return normed(layer.output.LayerNorm, x + affine(layer.output.dense, inner))


def published(model, tokens, image):
    """The prediction for one sample, whose tokens have no padding."""
    core = model.text.model
    tables = core.embeddings
    words, pieces = tables.word_embeddings.weight, tokens.tolist()
    first = [words[CLS], *(affine(model.project, image)), words[SEP]]
    second = [words[piece] for piece in pieces[1:-1]]
    rows = []
    for segment, part in enumerate((first, second)):
        for position, token in enumerate(part):
            row = token + tables.position_embeddings.weight[position]
            rows.append(row + tables.token_type_embeddings.weight[segment])
    x = normed(tables.LayerNorm, torch.stack(rows))
    for layer in core.encoder.layer:
        x = bert_layer(layer, x)
    return affine(model.head, torch.tanh(affine(core.pooler.dense, x[0])))


@pytest.mark.parametrize("count", [1, 4])
def test_the_prediction_is_the_published_formula(count, double):
    model, images = make().eval(), regions(count)
    perturb(model)
    result = model([TOKENS, images])
    expected = torch.stack(
        [published(model, row[row > 0], image) for row, image in zip(TOKENS, images, strict=True)]
    )
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    parameters, cotangent = list(model.parameters()), torch.randn(3, OUTPUTS)
    grads = torch.autograd.grad(result, parameters, cotangent)
    expected = torch.autograd.grad(expected, parameters, cotangent)
    # the padding's own embedding learns nothing in BERT, and is not asked for by the formula
    torch.testing.assert_close(grads, expected, rtol=1e-7, atol=1e-9)


def test_more_padding_changes_nothing(double):
    model, images = make().eval(), regions()
    images.requires_grad_()
    cotangent, results = torch.randn(3, OUTPUTS), []
    for tokens in (TOKENS, nn.functional.pad(TOKENS, (0, 3))):
        result = model([tokens, images])
        results.append((result, *torch.autograd.grad(result, [images], cotangent)))
    torch.testing.assert_close(*results)
    torch.testing.assert_close(model([TOKENS[1:2, :2], images[1:2]]), results[0][0][1:2])


def test_vectors_are_one_region():
    model, images = make().eval(), regions(1)
    assert torch.equal(model([TOKENS.float(), images[:, 0]]), model([TOKENS, images]))


def test_an_image_and_an_empty_text_are_enough():
    model = make().eval()
    empty = torch.tensor([[CLS, SEP]]).expand(3, -1)
    result = model([empty, regions()])
    assert result.isfinite().all() and not torch.allclose(result[0], result[1])


def test_either_modality_may_be_missing(double):
    model, images = make().eval(), regions()
    perturb(model)
    with model.without(0):
        result = model([TOKENS, images])
    empty = torch.tensor([[CLS, SEP]]).expand(3, -1)
    torch.testing.assert_close(result, model([empty, images]))
    with model.without(1):
        result = model([TOKENS, images])
    rows = [published(model, row[row > 0], images[0, :0]) for row in TOKENS]
    torch.testing.assert_close(result, torch.stack(rows))
    torch.testing.assert_close(model([TOKENS, images[:, :0]]), result)


@pytest.mark.parametrize("count", GRIDS)
def test_regions_are_means_of_their_part_of_the_map(count):
    encoder = ResNetEncoder(widths=(4, 5), depths=(1, 1)).eval()
    images = torch.randint(0, 256, (2, 3, 84 * 4, 12 * 4), dtype=torch.uint8)
    rows, columns = GRIDS[count]
    maps = encoder.feature_map(images)
    assert rows * columns == count
    height, width = maps.shape[2] // rows, maps.shape[3] // columns
    cut = [(r, c) for r in range(rows) for c in range(columns)]
    if maps.shape[2] % rows == 0 and maps.shape[3] % columns == 0:
        expected = torch.stack(
            [
                maps[:, :, r * height : (r + 1) * height, c * width : (c + 1) * width].mean((2, 3))
                for r, c in cut
            ],
            dim=1,
        )
        torch.testing.assert_close(ImageRegions(encoder, count)(images), expected)
    assert ImageRegions(encoder, count)(images).shape == (2, count, 5)


def test_the_whole_learns_and_dropout_is_berts():
    model = make(ImageRegions(ResNetEncoder(widths=(4, WIDE), depths=(1, 1)), 3))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    model([TOKENS, images]).square().mean().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    torch.manual_seed(0)
    first = model([TOKENS, images])
    assert not torch.allclose(model([TOKENS, images]), first)


def learning(model, name):
    model.zero_grad()
    model.round = name
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    model([TOKENS, images]).square().mean().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}


def test_parts_learn_later():
    model = make(ImageRegions(ResNetEncoder(widths=(4, WIDE), depths=(1, 1)), 3))
    names = {name for name, _ in model.named_parameters()}
    image = {name for name in names if name.startswith("image.")}
    text = {name for name in names if ".encoder.layer." in name and name.startswith("text.")}
    assert image and text and not image & text
    assert learning(model, "new") == names - image - text
    assert learning(model, "image") == names - text
    assert learning(model, "all") == learning(model, None) == names
    assert [rounds(epoch) for epoch in (1, 3, 4, 5, 6)] == [
        *(["new"], ["new"], ["image"], ["image"], ["all"])
    ]
    assert rounds(1, text=0, image=0) == ["all"] and rounds(2, text=1, image=2) == ["text"]
    assert learning(model, "text") == names - image


def test_bert_base_has_the_published_size():
    config = {"width": 768, "layers": 1, "heads": 12}
    text = BertEncoder(**config)
    count = sum(p.numel() for p in MMBT(text, nn.Identity(), 2048, 23).parameters())
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    embeddings = (30522 + 512 + 2) * 768 + 2 * 768
    pooler, new = 768 * 768 + 768, 2048 * 768 + 768 + 768 * 23 + 23
    assert count == embeddings + layer + pooler + new


def trained(steps=40):
    torch.manual_seed(3)
    model, images = make(), regions()
    perturb(model)
    truth = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model([TOKENS, images]), truth).backward()
        optimizer.step()
    return model.eval(), images, truth


def test_it_learns_a_batch_by_heart():
    model, images, truth = trained()
    assert ((model([TOKENS, images]) > 0) == truth.bool()).all()


def test_it_is_trained_the_same_every_time():
    (model, images, _), (other, _, _) = trained(3), trained(3)
    assert torch.equal(model([TOKENS, images]), other([TOKENS, images]))


def test_it_is_saved_and_copied():
    model, other, images = make(), make(), regions()
    expected = model.eval()([TOKENS, images])
    other.load_state_dict(model.state_dict())
    for copied in (other.eval(), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied([TOKENS, images]), expected)


def test_what_makes_no_sense_is_refused():
    model, images = make(), regions()
    with pytest.raises(ValueError, match="both of them, got"):
        model([images])
    with pytest.raises(ValueError, match="of the same samples"):
        model([TOKENS, images[:2]])
    with pytest.raises(ValueError, match=r"that of sample 1 is all padding; .* \[CLS\] \[SEP\]"):
        model([TOKENS * torch.tensor([[1], [0], [1]]), images])
    with pytest.raises(ValueError, match=r"length of 9 at most, got \(3, 10\); cut the texts"):
        model([nn.functional.pad(TOKENS, (0, 4)), images])
    with pytest.raises(ValueError, match=r"must be \(batch, regions, 5\), got \(3, 4, 4\)"):
        model([TOKENS, images[:, :, :4]])
    with pytest.raises(ValueError, match="regions must be from 1 to 9, got 10"):
        ImageRegions(ResNetEncoder(), 10)
    with pytest.raises(ValueError, match="with its pooler"):
        MMBT(bert(pooled=False), nn.Identity(), WIDE, OUTPUTS)
