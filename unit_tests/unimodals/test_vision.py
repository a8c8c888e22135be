"""The encoders on torchvision's networks, with a stand-in of the same layers in its place."""

import inspect
import pickle
import sys
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deq_fusion.unimodals import common_models
from deq_fusion.unimodals.common_models import (
    VGG,
    VGG16,
    ResNetLSTMEnc,
    VGG11Pruned,
    VGG11Slim,
    VGG16Pruned,
    VGG16Slim,
)

# convolutions in each of the five blocks (Simonyan and Zisserman, 2015, table 1)
BLOCKS = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
ENCODERS = [VGG, VGG16, ResNetLSTMEnc, VGG11Pruned, VGG11Slim, VGG16Pruned, VGG16Slim]
ONE_LINEAR = {VGG11Slim: 8, VGG11Pruned: 8, VGG16Slim: 13, VGG16Pruned: 13}  # convolutions


class StandIn(nn.Module):
    """Laid out as torchvision's VGG; the classifier's first six layers have no parameters."""

    def __init__(self, name):
        super().__init__()
        layers, inputs = [], 3
        for count, outputs in zip(BLOCKS[name], (64, 128, 256, 512, 512), strict=True):
            for _ in range(count):
                norm = [nn.BatchNorm2d(outputs)] if name.endswith("_bn") else []
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        same = [nn.Identity() for _ in range(5)]
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool1d(4096), *same, nn.Linear(4096, 1000))

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class Frames(nn.Module):
    """A network of images, (batch, 3, height, width) -> (batch, 1000)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1000)

    def forward(self, x):
        return self.fc(x.amax((2, 3)))


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """The (name, weights) that were asked of torchvision."""
    asked = []

    def build(name):
        def network(*, weights=None):
            asked.append((name, weights))
            return Frames() if name == "resnet18" else StandIn(name)

        return network

    package, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    package.models = models
    for name in (*BLOCKS, "resnet18"):
        setattr(models, name, build(name))
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return asked


def kinds(layers):
    return [type(layer) for layer in layers]


def test_trained_weights_are_asked_for_only_if_wanted(asked):
    names = ["vgg19", "vgg16_bn", "resnet18", "vgg11_bn", "vgg16_bn"]
    trained = [VGG, VGG16, ResNetLSTMEnc, VGG11Slim, VGG16Slim]
    with torch.device("meta"):  # nothing is computed
        for kind in trained:
            kind(4)
            kind(4, pretrained=False)
        VGG11Pruned(4)
        VGG16Pruned(4)
    expected = [(n, weights) for n in names for weights in ("IMAGENET1K_V1", None)]
    assert asked == [*expected, ("vgg11_bn", None), ("vgg16_bn", None)]


@pytest.mark.parametrize("kind", ENCODERS)
def test_without_torchvision_says_what_to_install(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="torchvision cannot be imported; install it with `pip"):
        kind(4)


def test_vgg16_replaces_the_last_layer():
    model, x = VGG16(5).eval(), torch.randn(2, 3, 32, 32)
    features = model.model.features(x)[:, :, 0, 0]  # 1 x 1, so the average pooling repeats it
    hidden = nn.functional.adaptive_avg_pool1d(features.repeat_interleave(49, dim=1), 4096)
    last = model.model.classifier[6]
    assert_close(model(x), hidden @ last.weight.T + last.bias)
    assert last.weight.shape == (5, 4096)


@pytest.mark.parametrize("kind", ONE_LINEAR)
@pytest.mark.parametrize("dropout", [True, False])
def test_features_with_dropout_after_every_relu_and_one_linear_layer(kind, dropout):
    model, x = kind(5, dropout=dropout, dropoutp=0.3).eval(), torch.randn(2, 3, 32, 32)
    layers = model.model.features
    drops = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Dropout)]
    relus = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    assert len(relus) == ONE_LINEAR[kind]
    assert drops == ([i + 1 for i in relus] if dropout else [])
    assert all(layers[i].p == 0.3 for i in drops)
    plain = StandIn("vgg11_bn" if ONE_LINEAR[kind] == 8 else "vgg16_bn").features
    kept = [layer for i, layer in enumerate(layers) if i not in drops]
    assert kinds(kept) == kinds(plain)
    share = 4 if "Pruned" in kind.__name__ else 1
    for ours, theirs in zip(kept, plain, strict=True):
        if isinstance(ours, nn.Conv2d):
            assert ours.out_channels == theirs.out_channels // share
            assert ours.in_channels in (3, theirs.in_channels // share)
    features = nn.Sequential(*kept)(x).expand(-1, -1, 7, 7).flatten(1)  # 1 x 1 before
    linear = model.model.classifier
    assert_close(model(x), features @ linear.weight.T + linear.bias)


def test_slim_vggs_keep_the_weights_that_torchvision_gave_them():
    torch.manual_seed(1)
    given = [*StandIn("vgg11_bn").features.parameters()]
    torch.manual_seed(1)
    found = [*VGG11Slim(5).model.features.parameters()]
    torch.testing.assert_close(found, given, rtol=0, atol=0)


def test_vgg11s_features_are_frozen_unless_asked_otherwise():
    for freeze in (True, False):
        model = VGG11Slim(5, freeze_features=freeze).model
        assert {p.requires_grad for p in model.features.parameters()} == {not freeze}
        assert all(p.requires_grad for p in model.classifier.parameters())


@pytest.mark.parametrize("share", [0.0, 1 / 65, 1.5])
def test_pruning_leaves_some_channels(share):
    with pytest.raises(ValueError, match=f"prune_factor must be between 1/64 and 1, got {share}"):
        VGG11Pruned(5, prune_factor=share)


def test_vgg_pools_four_depths_and_classifies_the_last():
    model, x = VGG(5).eval(), torch.randn(2, 3, 32, 32)
    nn.init.normal_(model.bn4.running_mean)
    seen = {nn.ReLU: [], nn.MaxPool2d: []}
    state = x
    for layer in model.vgg:
        state = layer(state)
        seen.get(type(layer), []).append(state.sum((2, 3)) / state.shape[2] / state.shape[3])
    relus, pools = seen[nn.ReLU], seen[nn.MaxPool2d]
    *pooled, logits = model(x)
    assert_close(pooled, [relus[8], relus[11], relus[14], pools[4]])
    normal = (pools[4] - model.bn4.running_mean) / (model.bn4.running_var + model.bn4.eps).sqrt()
    assert_close(logits, normal @ model.classifier.weight.T + model.classifier.bias)
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"vgg", "bn4", "classifier"}


def test_vgg_trains_on_a_single_image():
    model, x = VGG(5), torch.randn(1, 3, 32, 32)
    nn.init.normal_(model.bn4.running_mean)
    torch.manual_seed(0)
    *_, logits = model.train()(x)
    assert_close(logits, model.eval()(x)[-1])


def test_resnet_lstm_reads_a_videos_frames_in_order(double):
    model, x = ResNetLSTMEnc(6).eval(), torch.randn(2, 3, 4, 5, 7)
    expected = []
    for video in x.unbind():
        frames = torch.cat([model.enc(video[None, :, t]) for t in range(4)])
        expected.append(model.lstm(frames)[0][-1])
    assert_close(model(x), torch.stack(expected))
    assert {name.split(".")[0] for name in model.state_dict()} == {"enc", "lstm"}


def test_resnet_lstm_drops_entries_of_its_state_in_training():
    model, x = ResNetLSTMEnc(400, dropout=True, dropoutp=0.5), torch.randn(1, 3, 2, 4, 4)
    assert (model(x) == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (model.eval()(x) != 0).all()


@pytest.mark.parametrize("kind", ENCODERS)
def test_classes_and_arguments_have_multibenchs_names(kind):
    assert kind.__module__ == "deq_fusion.unimodals.common_models"
    assert pickle.loads(pickle.dumps(kind)) is getattr(common_models, kind.__name__)
    arguments = {
        VGG: "num_outputs",
        VGG16: "hiddim pretrained",
        VGG16Slim: "hiddim dropout dropoutp pretrained",
        VGG11Slim: "hiddim dropout dropoutp pretrained freeze_features",
        VGG11Pruned: "hiddim dropout prune_factor dropoutp",
        VGG16Pruned: "hiddim dropout prune_factor dropoutp",
        ResNetLSTMEnc: "hiddim dropout dropoutp",
    }[kind]
    parameters = inspect.signature(kind).parameters.values()
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == arguments.split()
