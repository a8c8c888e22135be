"""What reaches a part of a model is told in the loader's order, and the model stays as it was."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.training_structures.evaluation import inputs_of
from deq_fusion.training_structures.Supervised_Learning import MMDL


class Sum(nn.Module):
    """A fusion by addition, of as many calls a batch as asked for."""

    def forward(self, features):
        return sum(features)


class Called(nn.Module):
    """A model that calls its part several times, or never."""

    def __init__(self, times):
        super().__init__()
        self.part, self.times = nn.Linear(3, 2), times

    def forward(self, inputs):
        return sum((self.part(inputs[0]) for _ in range(self.times)), inputs[0][:, :2])


def make():
    encoders = [nn.Sequential(nn.Linear(width, 4), nn.Dropout(0.5)) for width in (3, 5)]
    return MMDL(encoders, Sum(), nn.Linear(4, 2))


def data(samples=10):
    return torch.randn(samples, 3), torch.randn(samples, 5), torch.arange(samples)


def loader(*tensors, **options):
    return DataLoader(TensorDataset(*tensors), batch_size=4, **options)


def test_features_of_all_batches_come_in_order_with_the_truth():
    model, (x, y, labels) = make(), data()
    features, truth = inputs_of(model.fuse, model, loader(x, y, labels))
    assert isinstance(features, list) and truth.equal(labels)
    for got, encoder, view in zip(features, model.encoders, (x, y), strict=True):
        torch.testing.assert_close(got, encoder[0](view))  # and no dropout
        assert not got.requires_grad
    (first, _), truth = inputs_of(model.fuse, model, loader(x, y, labels, shuffle=True))
    assert not truth.equal(labels)
    torch.testing.assert_close(first, model.encoders[0][0](x[truth]))


def test_any_part_may_be_asked_for_in_any_layout_of_batches():
    model, (x, y, labels) = make(), data()
    batches = [
        {"views": [x[:6], y[:6]], "y": labels[:6]},
        {"views": [x[6:], y[6:]], "y": labels[6:]},
    ]
    asked = {"split_batch": lambda batch: (batch["views"], {"label": batch["y"]})}
    fused, truth = inputs_of(model.head, model, batches, **asked)
    torch.testing.assert_close(fused, model.encoders[0][0](x) + model.encoders[1][0](y))
    torch.testing.assert_close(truth["label"], labels, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("enough", "count"), [(None, 10), (1, 4), (4, 4), (5, 8), (9, 10), (99, 10)]
)
def test_no_batch_is_read_once_there_are_enough_samples(enough, count):
    model, (x, y, labels) = make(), data()
    read = []

    def batches():
        for batch in loader(x, y, labels):
            read.append(len(batch[-1]))
            yield batch

    (first, _), truth = inputs_of(model.fuse, model, batches(), enough=enough)
    assert len(first) == len(truth) == sum(read) == count


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training):
    model, tensors = make(), data()
    model.train(training)
    model.encoders[1].train(not training)  # each module has a mode of its own
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    bad = [*loader(*tensors), [torch.randn(4, 9), tensors[1][:4], tensors[2][:4]]]
    for batches, fails in ((loader(*tensors), False), (bad, True)):
        if fails:
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                inputs_of(model.fuse, model, batches)
        else:
            inputs_of(model.fuse, model, batches)
        assert [module.training for module in model.modules()] == modes
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all(value.equal(weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("times", [0, 2])
def test_a_part_that_is_not_called_once_a_batch_is_refused(times):
    model, (x, _, labels) = Called(times), data()
    message = f"Linear must be called once a batch.*was called {times} times; name another part"
    with pytest.raises(ValueError, match=message):
        inputs_of(model.part, model, loader(x, labels))
    assert not model.part._forward_pre_hooks
    once = Called(1)
    torch.testing.assert_close(inputs_of(once.part, once, loader(x, labels))[0], x, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_reaches_it_and_the_truth_come_from_another_device():
    model, (x, y, labels) = make(), data()
    features, truth = inputs_of(model.fuse, model, loader(x, y, labels), device="cuda")
    assert {tensor.device.type for tensor in (*features, truth)} == {"cpu"}


def test_an_empty_loader_is_refused():
    model = make()
    with pytest.raises(ValueError, match="a loader must give at least one batch"):
        inputs_of(model.fuse, model, [])


def test_what_a_part_changes_in_place_is_told_as_it_came():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    data = torch.tensor([[-1.0], [2.0]])
    loader = [(data.clone(), torch.zeros(2))]
    found, _ = inputs_of(model[1], model, loader, split_batch=lambda batch: batch)
    torch.testing.assert_close(found, data, rtol=0, atol=0)


def test_a_part_that_is_told_more_by_keywords_is_refused():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(1, 1)

        def forward(self, x):
            return self.part(input=x)

    host = Host()
    with pytest.raises(
        ValueError, match=r"must get what reaches it .* got 0 and the keywords .'input"
    ):
        inputs_of(
            host.part, host, [(torch.ones(2, 1), torch.zeros(2))], split_batch=lambda batch: batch
        )
