"""PMF's two passes against transformers' layers, called sample by sample, without padding or
masks, on tokens put together by hand."""

import copy
import pickle

import pytest
import torch
from torch import nn

from deq_fusion.unimodals.pmf import PMF
from deq_fusion.unimodals.pretrained import BertEncoder, ViTEncoder

pytest.importorskip("transformers")

OUTPUTS = 2
TOKENS = torch.tensor([[2, 7, 9, 4, 3, 0], [2, 3, 0, 0, 0, 0], [2, 5, 8, 6, 4, 3]])


def make(text_layers=3, image_layers=4, **options):
    text = BertEncoder(vocabulary=12, width=12, layers=text_layers, heads=3, length=9, pooled=False)
    image = ViTEncoder(size=8, patch=4, width=8, layers=image_layers, heads=2)
    with torch.no_grad():
        for parameter in (*text.parameters(), *image.parameters()):
            # untrained networks hardly look at their input
            parameter.add_(0.2 * torch.randn_like(parameter))
    return PMF(text, image, OUTPUTS, **options)


def pictures(count=3):
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)


def called(layer, tokens):
    """A layer of transformers on one sample's tokens, (tokens, width)."""
    output = layer(tokens[None])
    return (output[0] if isinstance(output, tuple) else output)[0]


def mapped(two, x):
    first, _, last = two
    return torch.clamp(x @ first.weight.T + first.bias, min=0) @ last.weight.T + last.bias


def published(model, tokens, picture):
    """The prediction for one sample, whose tokens have no padding."""
    bert, vit = model.text.model, model.image.model
    bert_layers, vit_layers = bert.encoder.layer, getattr(vit, "layers", None) or vit.encoder.layer
    text = bert.embeddings(input_ids=tokens[None])[0]
    image = vit.embeddings((picture[None] / 255 - 0.5) / 0.5)[0]
    fusing = len(model.text_prompts)
    for layer in bert_layers[: len(bert_layers) - fusing]:
        text = called(layer, text)
    for layer in vit_layers[: len(vit_layers) - fusing]:
        image = called(layer, image)
    for k in range(fusing):
        of_text, of_image = model.text_prompts[k], model.image_prompts[k]
        at_bert = bert_layers[len(bert_layers) - fusing + k]
        at_vit = vit_layers[len(vit_layers) - fusing + k]
        count, n, m = len(of_text.queries), len(text), len(image)
        asked = called(at_bert, torch.cat([text, of_text.query_context, of_text.queries]))
        to_image = mapped(of_text.map, asked[len(asked) - count :])
        asked = called(at_vit, torch.cat([image, of_image.query_context, of_image.queries]))
        to_text = mapped(of_image.map, asked[len(asked) - count :])
        text = called(at_bert, torch.cat([text, of_text.fusion_context, to_text]))[:n]
        image = called(at_vit, torch.cat([image, of_image.fusion_context, to_image]))[:m]
    of_image = model.image_head(vit.layernorm(image)[0])
    return 0.5 * model.text_head(text[0]) + 0.5 * of_image


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion_layers": 3, "queries": 2, "query_context": 3, "fusion_context": 1, "hidden": 5},
        {"fusion_layers": 1, "query_context": 0, "fusion_context": 0},
    ],
)
def test_the_prediction_is_the_published_formula(options, double):
    model, images = make(**options), pictures()
    result = model([TOKENS, images])
    pairs = zip(TOKENS, images, strict=True)
    expected = torch.stack([published(model, row[row > 0], image) for row, image in pairs])
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    learnt = [p for p in model.parameters() if p.requires_grad and p.numel()]
    cotangent = torch.randn(3, OUTPUTS)
    grads = torch.autograd.grad(result, learnt, cotangent)
    expected = torch.autograd.grad(expected, learnt, cotangent)
    torch.testing.assert_close(grads, expected, rtol=1e-7, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences(double):
    model, images, cotangent = make(), pictures(), torch.randn(3, OUTPUTS)
    learnt = [p for p in model.parameters() if p.requires_grad]
    directions = [torch.randn_like(p) for p in learnt]
    grads = torch.autograd.grad(model([TOKENS, images]), learnt, cotangent)
    step, values = 1e-6, []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(learnt, directions, strict=True):
                p.add_(sign * step * d)
            values.append((model([TOKENS, images]) * cotangent).sum())
    slope = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), slope, rtol=1e-6, atol=1e-9)


def test_more_padding_changes_nothing(double):
    model, images = make(), pictures()
    expected = model([TOKENS, images])
    longer = nn.functional.pad(TOKENS, (0, 3))
    torch.testing.assert_close(model([longer.float(), images]), expected)
    torch.testing.assert_close(model([TOKENS[1:2, :2], images[1:2]]), expected[1:2])


def test_only_prompts_maps_and_heads_learn():
    model = make().train()
    model([TOKENS, pictures()]).square().mean().backward()
    frozen = [*model.text.parameters(), *model.image.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(learnt) + len(frozen) == len(list(model.parameters()))
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learnt.values())
    assert any("fusion_context" in name for name in learnt)  # in the release they are not
    n, text, image, hidden = 2, 12, 8, 6
    prompts = 3 * 4 * (text + image)
    maps = (text * hidden + hidden + hidden * image + image) + (
        image * hidden + hidden + hidden * text + text
    )
    count = n * (prompts + maps) + (text + 1) * OUTPUTS + (image + 1) * OUTPUTS
    assert sum(p.numel() for p in learnt.values()) == count


def test_frozen_parts_are_in_evaluation_mode_always():
    model, images = make().train(), pictures()
    assert model.training and not model.text.training and not model.image.model.training
    assert torch.equal(model([TOKENS, images]), model([TOKENS, images]))  # BERT's dropout is off
    assert torch.equal(model.eval()([TOKENS, images]), model.train()([TOKENS, images]))


def test_the_modalities_read_each_other():
    model, images = make(fusion_layers=1), pictures()
    with torch.no_grad():
        model.image_head.weight.zero_()  # what is left is text's [CLS]
        before = model([TOKENS, images])
        assert not torch.allclose(model([TOKENS, 255 - images]), before)
        model.image_prompts[0].map[2].weight.zero_()  # images are silent
        before = model([TOKENS, images])
        assert torch.equal(model([TOKENS, 255 - images]), before)


def trained(steps=40):
    torch.manual_seed(3)
    model, images = make(), pictures()
    truth = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
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
    model, other, images = make(), make(), pictures()
    expected = model([TOKENS, images])
    other.load_state_dict(model.state_dict())
    for copied in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied([TOKENS, images]), expected)


def test_what_makes_no_sense_is_refused():
    model, images = make(), pictures()
    with pytest.raises(ValueError, match="both of them, got"):
        model([TOKENS])
    with pytest.raises(ValueError, match=r"that of sample 1 is all padding; .* \[CLS\] \[SEP\]"):
        model([TOKENS * torch.tensor([[1], [0], [1]]), images])
    with pytest.raises(ValueError, match="must be 8 x 8 pixels, .* got 8 x 4"):
        model([TOKENS, images[..., :4]])
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, height, width\)"):
        model([TOKENS, torch.randn(3, 5)])
    with pytest.raises(ValueError, match="from 1 to 3, the layers of the shorter .* got 4 fusion"):
        make(fusion_layers=4)
    with pytest.raises(ValueError, match="a query at least, got 2 fusion layers and 0, 4 and 4"):
        make(queries=0)
