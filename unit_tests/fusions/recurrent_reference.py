"""The recurrent fusions of aligned sequences by their formulas: numpy, a step at a time."""

import numpy as np


def array(tensor):
    return tensor.detach().double().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def affine(linear, x):
    return array(linear.weight) @ x + array(linear.bias)


def two_layers(network, x):
    return affine(network.second, np.maximum(affine(network.first, x), 0))


def lstm(system, m, x, h, c, z=None):
    """A step of modality m of a system of LSTMs, which may read a code z: (h_t, c_t)."""
    sums = array(system.inputs[m]) @ x + array(system.recurrent[m]) @ h + array(system.bias[m])
    if z is not None:
        sums = sums + array(system.code[m]) @ z
    i, f, o = sigmoid(sums[:3])
    c = f * c + i * np.tanh(sums[3])
    return o * np.tanh(c), c


def lstms(system, step, h, c, z=None):
    """A step of all modalities: their h_t, and their c_t."""
    states = enumerate(zip(step, h, c, strict=True))
    return zip(*(lstm(system, m, *state, z) for m, state in states), strict=True)


def zeros(system):
    return [np.zeros(width) for width in system.hidden]


def result(fusion, *parts):
    return np.maximum(affine(fusion.output[0], np.concatenate(parts)), 0)


def samples(features):
    """Yields each sample's sequences as numpy arrays, (time, d_i) each."""
    for n in range(len(features[0])):
        yield [array(x[n]) for x in features]


def mfn(fusion, sequences):
    h, c = zeros(fusion.lstms), zeros(fusion.lstms)
    u = np.zeros(len(array(fusion.update.second.bias)))
    for step in zip(*sequences, strict=True):
        before = c
        h, c = lstms(fusion.lstms, step, h, c)
        both = np.concatenate([*before, *c])
        attended = softmax(two_layers(fusion.attention, both)) * both
        keep, admit = (
            sigmoid(two_layers(gate, np.concatenate([attended, u])))
            for gate in (fusion.keep, fusion.admit)
        )
        u = keep * u + admit * np.tanh(two_layers(fusion.update, attended))
    return result(fusion, *h, u)


def marn(fusion, sequences):
    h, c = zeros(fusion.lsthm), zeros(fusion.lsthm)
    z = np.zeros(fusion.lsthm.code_width)
    ends = np.cumsum(fusion.lsthm.hidden)[:-1]
    for step in zip(*sequences, strict=True):
        h, c = lstms(fusion.lsthm, step, h, c, z)
        together = np.concatenate(h)
        scores = two_layers(fusion.attention, together).reshape(fusion.attentions, -1)
        seen = [np.split(softmax(row) * together, ends) for row in scores]
        local = [
            sum(array(weight)[:, k] @ parts[m] for k, parts in enumerate(seen)) + array(bias)
            for m, (weight, bias) in enumerate(zip(fusion.local, fusion.local_bias, strict=True))
        ]
        z = np.tanh(affine(fusion.code[0], np.maximum(np.concatenate(local), 0)))
    return result(fusion, *h, z)


def rmfn(fusion, sequences):
    h, c = zeros(fusion.lsthm), zeros(fusion.lsthm)
    z = np.zeros(fusion.lsthm.code_width)
    for step in zip(*sequences, strict=True):
        h, c = lstms(fusion.lsthm, step, h, c, z)
        together = np.concatenate(h)
        none = np.zeros_like(together)
        memory, attention, seen = np.tanh(affine(fusion.start[0], together)), none, together
        fused, fused_memory, stages = none, none, []
        for _ in range(fusion.stages):
            d, memory = lstm(fusion.highlight, 0, seen, attention, memory)
            attention = softmax(d)
            seen = attention * together
            fused, fused_memory = lstm(fusion.fuse, 0, seen, fused, fused_memory)
            stages.append(fused)
        z = np.tanh(affine(fusion.code[0], np.concatenate(stages)))
    return result(fusion, *h, z)


def ef_lstm(fusion, sequences):
    """torch's LSTM has the gates i, f, g, o in this order, and two biases."""
    w, u, b1, b2 = (array(p) for p in fusion.lstm.parameters())
    h = c = np.zeros(fusion.lstm.hidden_size)
    for step in zip(*sequences, strict=True):
        i, f, g, o = (w @ np.concatenate(step) + b1 + u @ h + b2).reshape(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return result(fusion, h)
