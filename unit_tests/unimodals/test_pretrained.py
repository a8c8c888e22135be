"""Encoders on transformers' networks: the same numbers as its own calls, from local folders only,
and nothing printed or warned of."""

import copy
import json
import pickle

import pytest
import torch

from deq_fusion.unimodals.pretrained import BertEncoder, ResNetEncoder, ViTEncoder

transformers = pytest.importorskip("transformers")

TOKENS = torch.tensor([[2, 7, 9, 3], [2, 5, 3, 0], [2, 3, 0, 0]])
SMALL = {"vocabulary": 30, "width": 16, "length": 12}


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)


def save(model, folder):
    """Saves as transformers does, without its bar."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    transformers.utils.logging.enable_progress_bar()
    return folder


@pytest.fixture
def bert(tmp_path):
    """A folder of a BERT as the hub has it, with the head of its pretraining, and its core."""
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=12,
    )
    model = transformers.BertForPreTraining(config).eval()
    return save(model, tmp_path / "bert"), model.bert


@pytest.fixture
def resnet(tmp_path):
    """A folder of a ResNet of bottlenecks with a classifier, as the hub has it, and its core."""
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 2, 1, 1]
    )
    model = transformers.ResNetForImageClassification(config)
    with torch.no_grad():
        model(pixel_values=torch.randn(8, 3, 64, 64))  # batch statistics that are not the default
    return save(model.eval(), tmp_path / "resnet"), model.resnet


@pytest.fixture
def vit(tmp_path):
    """A folder of a ViT with a classifier, as the hub has it, and its core."""
    config = transformers.ViTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
    )
    model = transformers.ViTForImageClassification(config).eval()
    return save(model, tmp_path / "vit"), model.vit


def normalised(images):
    """ImageNet's statistics, channel by channel."""
    planes = images.double() / 255
    channels = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]
    parts = [(planes[:, i] - mean) / std for i, (mean, std) in enumerate(channels)]
    return torch.stack(parts, dim=1).float()


def test_bert_gives_what_transformers_gives(bert, capfd):
    folder, expected = bert
    capfd.readouterr()
    encoder = BertEncoder(folder).eval()
    assert encoder.dim == 24 and capfd.readouterr() == ("", "")
    output = expected(input_ids=TOKENS, attention_mask=(TOKENS > 0).long())
    torch.testing.assert_close(encoder(TOKENS), output.pooler_output)
    torch.testing.assert_close(encoder(TOKENS.float()), output.pooler_output)


@pytest.mark.parametrize("sizes", [None, SMALL])
def test_bert_gives_every_token_if_asked_to(bert, sizes):
    folder, expected = bert
    encoder = BertEncoder(folder if sizes is None else None, pooled=False, **(sizes or {})).eval()
    model = expected if sizes is None else encoder.model
    output = model(input_ids=TOKENS, attention_mask=(TOKENS > 0).long())
    states = encoder(TOKENS)
    assert states.shape == (*TOKENS.shape, encoder.dim)
    torch.testing.assert_close(states, output.last_hidden_state)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())  # nothing untrained
    longer = encoder(torch.nn.functional.pad(TOKENS, (0, 8)))[:, : TOKENS.shape[1]]
    torch.testing.assert_close(longer[TOKENS > 0], states[TOKENS > 0])


def test_padding_does_not_change_the_text(bert):
    encoder = BertEncoder(bert[0]).eval()
    padded = encoder(torch.nn.functional.pad(TOKENS, (0, 8)))
    torch.testing.assert_close(padded, encoder(TOKENS))
    torch.testing.assert_close(padded[2:], encoder(TOKENS[2:, :2]))
    assert not torch.allclose(padded[0], padded[1])  # what is no padding does


def test_resnet_gives_what_transformers_gives(resnet, images, capfd):
    folder, expected = resnet
    capfd.readouterr()
    encoder = ResNetEncoder(folder).eval()
    assert encoder.dim == 20 and capfd.readouterr() == ("", "")
    output = expected(pixel_values=normalised(images)).pooler_output.flatten(1)
    torch.testing.assert_close(encoder(images), output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(images.float()), output, rtol=1e-4, atol=1e-5)
    assert output.std(dim=0).max() > 1e-4  # the pictures differ


def test_vit_gives_what_transformers_gives(vit, images, capfd):
    folder, expected = vit
    capfd.readouterr()
    encoder, square = ViTEncoder(folder).eval(), images[..., :64]
    assert encoder.dim == 24 and capfd.readouterr() == ("", "")
    normal = (square.double() / 255 - 0.5) / 0.5
    output = expected(pixel_values=normal.float()).last_hidden_state
    assert output.shape == (3, 1 + 4 * 4, 24)
    torch.testing.assert_close(encoder(square), output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(square.float()), output, rtol=1e-4, atol=1e-5)
    assert output.std(dim=0).max() > 1e-4  # the pictures differ


def test_the_grid_averages_to_the_feature(images):
    encoder = ResNetEncoder().eval()
    grid = encoder.grid(images)
    assert grid.shape == (3, 2 * 3, 256) and encoder.dim == 256
    torch.testing.assert_close(grid.mean(dim=1), encoder(images))


def test_the_grid_runs_row_by_row(images):
    encoder = ResNetEncoder().eval()
    changed = images.clone()
    changed[:, :, :, -1] = 255 - changed[:, :, :, -1]  # the last column of the picture
    moved = (encoder.grid(changed) - encoder.grid(images)).abs().sum(dim=2).unflatten(1, (2, 3))
    assert (moved[:, :, -1] > moved[:, :, 0]).all()


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (lambda: BertEncoder(**SMALL), TOKENS),
        (lambda: ResNetEncoder(widths=(4, 8), depths=(1, 1)), torch.zeros(2, 3, 32, 32).byte()),
        (lambda: ViTEncoder(size=32, width=16), torch.zeros(2, 3, 32, 32).byte()),
    ],
)
def test_an_untrained_encoder_is_a_module_like_others(make, batch):
    encoder, other = make(), make()
    assert encoder.training and encoder.model.training
    encoder.train()(batch).square().sum().backward()
    grads = [p.grad for p in encoder.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert max(grad.abs().max() for grad in grads) > 0
    encoder.zero_grad()
    expected = encoder.eval()(batch)
    assert (len(expected), expected.shape[-1]) == (len(batch), encoder.dim)
    other.load_state_dict(encoder.state_dict())
    for copied in (other.eval(), copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert not copied.model.training
        torch.testing.assert_close(copied(batch), expected, rtol=0, atol=0)


def test_the_seed_decides_the_untrained_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in BertEncoder(**SMALL).parameters()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_sizes_are_those_asked_for():
    encoder = BertEncoder(vocabulary=50, width=32, layers=3, heads=4, length=9)
    config = encoder.model.config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (50, 32, 3)
    assert (config.num_attention_heads, config.max_position_embeddings) == (4, 9)
    assert encoder.dim == 32 and ResNetEncoder(widths=(4, 6), depths=(1, 2)).dim == 6


def test_encoders_follow_the_default_dtype(bert, resnet, vit, images, double):
    assert ViTEncoder(vit[0]).eval()(images[..., :64]).dtype == torch.float64
    assert BertEncoder(bert[0]).eval()(TOKENS).dtype == torch.float64
    assert ResNetEncoder(resnet[0]).eval()(images).dtype == torch.float64


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        (BertEncoder, "bert-base-uncased"),
        (ResNetEncoder, "resnet-152"),
        (ViTEncoder, "vit-base-patch16-224-in21k"),
    ],
)
def test_a_name_of_the_hub_is_refused(encoder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"has no config.json.*: hf download .*{name} --"):
        encoder(name)


def test_a_folder_without_weights_is_named(bert):
    (bert[0] / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="bert must hold .*but has no model.safetensors;"):
        BertEncoder(bert[0])


def test_pickled_weights_are_not_loaded(bert):
    (bert[0] / "model.safetensors").rename(bert[0] / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        BertEncoder(bert[0])


def test_another_network_is_refused(bert, resnet):
    with pytest.raises(ValueError, match="must hold a bert, but it holds .* type 'resnet'"):
        BertEncoder(resnet[0])
    with pytest.raises(ValueError, match="must hold a resnet, but it holds .* type 'bert'"):
        ResNetEncoder(bert[0])
    with pytest.raises(ValueError, match="must hold a vit, but it holds .* type 'bert'"):
        ViTEncoder(bert[0])


def test_missing_weights_are_never_made_up(tmp_path):
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    folder = save(transformers.BertForMaskedLM(config), tmp_path / "headless")  # has no pooler
    with pytest.raises(ValueError, match="all weights of a bert, but 2 are missing.*pooler"):
        BertEncoder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_named(bert, name):
    (bert[0] / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"{bert[0]} must hold a bert, but .*hf download"):
        BertEncoder(bert[0])


def test_weights_of_another_shape_are_refused(bert):
    config = json.loads((bert[0] / "config.json").read_text())
    (bert[0] / "config.json").write_text(json.dumps(config | {"vocab_size": 31}))
    with pytest.raises(ValueError, match="must hold a bert, but"):
        BertEncoder(bert[0])


def test_wrong_arguments_are_refused(images):
    with pytest.raises(ValueError, match="heads must divide width, got 3 heads of width 16"):
        BertEncoder(**SMALL, heads=3)
    with pytest.raises(ValueError, match="heads must divide width, got 3 heads of width 16"):
        ViTEncoder(width=16, heads=3)
    with pytest.raises(ValueError, match="patch must divide size, got patches of 16 in 40 pixels"):
        ViTEncoder(size=40)
    with pytest.raises(ValueError, match="images must be 32 x 32 pixels, .* got 64 x 96; read"):
        ViTEncoder(size=32, width=16)(images)
    with pytest.raises(ValueError, match="one entry a stage, got"):
        ResNetEncoder(widths=(4, 8), depths=(1,))
    with pytest.raises(ValueError, match=r"length of 12 at most, got \(1, 13\)"):
        BertEncoder(**SMALL)(torch.ones(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, .* got \(3, 64, 96, 3\)"):
        ResNetEncoder(widths=(4,), depths=(1,))(images.movedim(1, -1))
