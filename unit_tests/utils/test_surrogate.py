"""The surrogate against an LSTM in numpy loops, and its record of what was tried."""

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.utils import search_tools as tools
from deq_fusion.utils.surrogate import (
    SimpleRecurrentSurrogate,
    SurrogateDataloader,
    train_simple_surrogate,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def predicted(state, configuration):
    """The prediction for one configuration, a layer after the other."""
    hidden = cell = np.zeros(state["hid2val.weight"].shape[1])
    for row in configuration:
        embedded = sigmoid(state["embedding.0.weight"] @ row + state["embedding.0.bias"])
        gates = state["lstm.weight_ih_l0"] @ embedded + state["lstm.bias_ih_l0"]
        gates = gates + state["lstm.weight_hh_l0"] @ hidden + state["lstm.bias_hh_l0"]
        enter, forget, new, out = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(cell)
    return sigmoid(state["hid2val.weight"] @ hidden + state["hid2val.bias"])[0]


def test_predictions_are_those_of_an_lstm_over_the_layers(double):
    surrogate = SimpleRecurrentSurrogate(5, 3, 4)
    state = {name: value.numpy() for name, value in surrogate.state_dict().items()}
    configurations = [np.array([[2, 0, 1]]), np.array([[1, 1, 0], [0, 3, 2], [4, 1, 1]])]
    for configuration in configurations:
        expected = predicted(state, configuration)
        assert surrogate.eval_model(configuration, "cpu") == pytest.approx(expected, rel=1e-12)
        batch = torch.tensor(np.stack([configuration, configuration], axis=1)).double()
        assert surrogate(batch).shape == (2, 1)
    assert tools.predict_accuracies_with_surrogate(configurations, surrogate, "cpu") == [
        surrogate.eval_model(c, None) for c in configurations
    ]


def test_a_seeded_surrogate_is_drawn_in_multibenchs_order():
    torch.manual_seed(3)
    surrogate = SimpleRecurrentSurrogate(5, 3, 4)
    torch.manual_seed(3)
    first, lstm, last = nn.Linear(3, 4), nn.LSTM(4, 5), nn.Linear(5, 1)
    for linear in (first, last):
        linear.weight.data.uniform_(-0.1, 0.1)
        linear.bias.data.fill_(1.8)
    expected = nn.ModuleDict({"embedding": nn.Sequential(first), "lstm": lstm, "hid2val": last})
    torch.testing.assert_close(dict(surrogate.state_dict()), dict(expected.state_dict()))


def record():
    data = SurrogateDataloader()
    tried = [([[0, 1]], 0.5), ([[1, 1], [0, 0]], 0.75), ([[1, 0]], 0.25), ([[0, 1]], 0.375)]
    for rows, accuracy in [*tried, ([[1, 0]], 0.75)]:
        data.add_datum(np.array(rows), accuracy)
    return data


def test_the_record_keeps_the_best_accuracy_of_every_configuration():
    confs, accs = record().get_data()
    assert [x.tolist() for x in confs] == [[[[0, 1], [1, 0]]], [[[1, 1]], [[0, 0]]]]
    assert [x.tolist() for x in accs] == [[[0.5], [0.75]], [[0.75]]]
    assert all(x.dtype == np.float32 for x in [*confs, *accs])
    tensors = record().get_data(to_torch=True)
    torch.testing.assert_close(tensors, tuple([torch.tensor(x) for x in y] for y in (confs, accs)))


def test_the_best_come_first():
    confs, accs, positions = record().get_k_best(2)
    assert [conf.tolist() for conf in confs] == [[[1, 0]], [[1, 1], [0, 0]]]
    assert accs == [0.75, 0.75] and positions.tolist() == [1, 2]
    assert record().get_k_best(3)[1] == [0.75, 0.75, 0.5]
    for wrong in (0, 4):
        with pytest.raises(ValueError, match="from 1 to the 3 configurations"):
            record().get_k_best(wrong)


def test_training_is_a_gradient_step_for_every_length():
    data, rate = record(), 0.5
    torch.manual_seed(1)
    surrogate, expected = SimpleRecurrentSurrogate(4, 2, 3), SimpleRecurrentSurrogate(4, 2, 3)
    expected.load_state_dict(surrogate.state_dict())
    optimizer = torch.optim.SGD(surrogate.parameters(), lr=rate)
    loss = tools.train_surrogate(surrogate, data, optimizer, nn.MSELoss(), 3, "cpu")
    for _ in range(3):
        for confs, accs in zip(*data.get_data(to_torch=True), strict=True):
            value = (expected(confs) - accs).square().mean()
            parameters = list(expected.parameters())
            for weight, gradient in zip(
                parameters, torch.autograd.grad(value, parameters), strict=True
            ):
                weight.data -= rate * gradient
    assert loss == pytest.approx(value.item(), rel=1e-6) and not surrogate.training
    torch.testing.assert_close(dict(surrogate.state_dict()), dict(expected.state_dict()))


def test_training_needs_something_to_learn():
    surrogate = SimpleRecurrentSurrogate(4, 2, 3)
    optimizer = torch.optim.SGD(surrogate.parameters(), lr=1)
    for data, epochs in (([], []), 3), (record().get_data(to_torch=True), 0):
        with pytest.raises(ValueError, match="at least one epoch and one configuration"):
            train_simple_surrogate(surrogate, nn.MSELoss(), optimizer, data, epochs, "cpu")
