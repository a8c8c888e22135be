"""Fusions that recur over aligned sequences: their formulas, gradients, and what they refuse."""

import copy

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from deq_fusion.fusions.early_lstm import EarlyLSTM
from deq_fusion.fusions.memory_fusion import MemoryFusion
from deq_fusion.fusions.multi_attention import MultiAttentionRecurrence
from deq_fusion.fusions.multistage import MultistageRecurrence
from unit_tests.fusions import recurrent_reference as by_formula

WIDTHS, DIM, BATCH, TIME = [3, 4, 2], 5, 4, 6
MAKE = {
    "ef_lstm": EarlyLSTM,
    "mfn": MemoryFusion,
    "marn": MultiAttentionRecurrence,
    "rmfn": MultistageRecurrence,
}
SIZES = {  # -> other sizes than the default ones, all of them different
    "ef_lstm": {},
    "mfn": {"hidden": [4, 1, 2], "memory": 3, "attention": 6, "update": 7, "gates": [8, 2]},
    "marn": {"hidden": [4, 1, 2], "attentions": 3, "attention": 6, "local": [2, 3, 1], "code": 8},
    "rmfn": {"hidden": [4, 1, 2], "stages": 2, "code": 8},
}
every = pytest.mark.parametrize("name", MAKE)


def make(name, widths=WIDTHS, dim=DIM, **options):
    """A fusion whose parameters, biases as well, all differ and are not small."""
    fusion = MAKE[name](widths, dim, **options)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return fusion


def sequences(widths=WIDTHS, batch=BATCH, time=TIME, **options):
    return [torch.randn(batch, time, width, **options) for width in widths]


def parameters(fusion):
    return sum(p.numel() for p in fusion.parameters())


@every
@pytest.mark.parametrize("sizes", ["default", "others"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_follows_the_formula_step_by_step(double, name, sizes, count):
    options = SIZES[name] if sizes == "others" else {}
    lists = ("hidden", "local")
    options = {k: v[:count] if k in lists else v for k, v in options.items()}
    fusion, features = make(name, WIDTHS[:count], **options), sequences(WIDTHS[:count])
    expected = [getattr(by_formula, name)(fusion, s) for s in by_formula.samples(features)]
    assert_close(fusion(features), torch.from_numpy(np.stack(expected)))
    assert np.any(expected)


@every
def test_gradients_of_inputs_and_parameters_are_those_of_the_formula(double, name):
    fusion, features = make(name), sequences(batch=2, time=3)
    names, values = zip(*fusion.named_parameters(), strict=True)
    cotangent = torch.randn_like(fusion(features))

    def projected(*arguments):
        state = dict(zip(names, arguments[len(features) :], strict=True))
        return (functional_call(fusion, state, (arguments[: len(features)],)) * cotangent).sum()

    inputs = [x.detach().requires_grad_() for x in (*features, *values)]
    assert torch.autograd.gradcheck(projected, inputs, fast_mode=True)


@every
def test_vectors_are_sequences_of_one_step(name):
    fusion, features = make(name), sequences(time=1)
    assert torch.equal(fusion([x[:, 0] for x in features]), fusion(features))


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_half_precision_where_autocast_says_so(name, dtype):
    fusion, features = make(name), sequences()
    with torch.autocast("cpu", dtype=dtype):
        fused = fusion(features)
    assert_close(fused.float(), fusion(features), rtol=0.1, atol=0.2)
    fused.backward(torch.randn_like(fused))
    assert all(p.grad.isfinite().all() for p in fusion.parameters())


@every
def test_a_sample_does_not_see_its_batch_and_the_order_of_steps_counts(double, name):
    fusion, features = make(name), sequences()
    fused = fusion(features)
    assert_close(fusion([x[1:2] for x in features]), fused[1:2])
    assert not torch.allclose(fusion([x.flip(1) for x in features]), fused, atol=1e-3)


@every
def test_sequences_that_are_not_aligned_are_refused(name):
    fusion = make(name)
    features = [*sequences()[:2], torch.randn(BATCH, TIME - 1, WIDTHS[2])]
    with pytest.raises(ValueError, match=r"must be aligned.* got \[6, 6, 5\] steps; align them"):
        fusion(features)
    with pytest.raises(ValueError, match="must agree in all dimensions but the last"):
        fusion([*sequences()[:2], torch.randn(BATCH, WIDTHS[2])])
    with pytest.raises(ValueError, match=r"got shape \(4, 6, 1, 3\); join the dimensions"):
        fusion([x.unsqueeze(2) for x in sequences()])


@every
def test_what_does_not_fit_is_refused(name):
    fusion, features = make(name), sequences()
    with pytest.raises(ValueError, match=r"a list of 3 tensors.*got 1"):
        fusion(features[:1])
    with pytest.raises(ValueError, match=r"features\[0\] must have shape \(batch, ..., 3\)"):
        fusion(features[::-1])
    with pytest.raises(ValueError, match="features must be finite, but features"):
        fusion([features[0] * torch.nan, *features[1:]])
    with pytest.raises(ValueError, match="at least one modality, got none"):
        MAKE[name]([], DIM)
    with pytest.raises(ValueError, match="must be an integer of at least 1, got 0"):
        MAKE[name](WIDTHS, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mfn", {"hidden": [4, 1]}, r"hidden must list 3 widths, one for each of input_dims, got"),
        ("mfn", {"hidden": [4, 1, 0]}, r"hidden\[2\] must be an integer of at least 1"),
        ("mfn", {"gates": [4, 1, 2]}, r"gates must list 2 widths"),
        ("mfn", {"memory": 0}, "memory must be an integer of at least 1, got 0"),
        ("marn", {"attentions": 0}, "attentions must be an integer of at least 1, got 0"),
        ("marn", {"local": [1]}, "local must list 3 widths"),
        ("rmfn", {"stages": 0}, "stages must be an integer of at least 1, got 0"),
        ("rmfn", {"code": 1.5}, "code must be an integer of at least 1, got 1.5"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        MAKE[name](WIDTHS, DIM, **options)


@every
def test_dropout_is_in_training_alone(name):
    fusion, features = make(name, dropout=0.5), sequences()
    torch.manual_seed(1)
    first, second = fusion(features), fusion(features)
    torch.manual_seed(1)
    assert torch.equal(first, fusion(features)) and not torch.equal(first, second)
    fusion.eval()
    assert torch.equal(fusion(features), fusion(features))


def trained(name, steps):
    """The loss after some steps on six sequences, and the fusion."""
    torch.manual_seed(0)
    fusion, head = MAKE[name](WIDTHS, 16), torch.nn.Linear(16, 1)
    features, truth = sequences(batch=6, time=3), torch.randn(6, 1)
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.03)
    for _ in range(steps):
        loss = (head(fusion(features)) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), fusion


@every
def test_a_few_sequences_are_learnt_by_heart(name):
    assert trained(name, 50)[0] < 0.02


@every
def test_training_repeats_itself_and_is_saved_and_loaded(name):
    fusion, again, features = trained(name, 3)[1], trained(name, 3)[1], sequences()
    pairs = zip(fusion.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    twin = MAKE[name](WIDTHS, 16)
    twin.load_state_dict(copy.deepcopy(fusion.state_dict()))
    assert torch.equal(twin(features), fusion(features))


def test_published_sizes_have_the_parameters_of_the_formula():
    widths, hidden, memory, out = (300, 5, 20), (88, 48, 16), 128, 64
    seen = 2 * sum(hidden)
    lstms = sum(4 * h * (d + h + 1) for d, h in zip(widths, hidden, strict=True))

    def layers(*sizes):
        return sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))

    expected = lstms + layers(seen, 128, seen) + layers(seen, 64, memory)
    expected += layers(seen + memory, 256, memory) + layers(seen + memory, 64, memory)
    expected += layers(sum(hidden) + memory, out)
    sizes = {"hidden": hidden, "memory": memory, "attention": 128, "update": 64}
    assert parameters(MemoryFusion(widths, out, **sizes, gates=(256, 64))) == expected
    early = EarlyLSTM(widths, 128)  # torch's LSTM has each bias twice
    assert parameters(early) == 4 * 128 * (325 + 128 + 2) + layers(128, 128)


def test_default_sizes_have_the_parameters_of_the_formula():
    d, k, n = 8, 4, 2
    hybrid = sum(4 * (d // n) * (w + d // n + d + 1) for w in WIDTHS[:n])
    block = (d + 1) * d + (d + 1) * k * d + n * (k * (d // n) + 1) * (d // n) + (d + 1) * d
    output = (2 * d + 1) * d
    assert parameters(MultiAttentionRecurrence(WIDTHS[:n], d)) == hybrid + block + output
    stages = 2 * 4 * d * (2 * d + 1) + (d + 1) * d + (3 * d + 1) * d
    assert parameters(MultistageRecurrence(WIDTHS[:n], d)) == hybrid + stages + output


def test_the_states_share_out_the_width_that_is_wanted():
    assert MemoryFusion(WIDTHS, 8).lstms.hidden == (3, 3, 2)
    assert MemoryFusion(WIDTHS, 2).lstms.hidden == (1, 1, 1)


def test_forget_gates_begin_open():
    system = MultiAttentionRecurrence(WIDTHS, DIM).lsthm
    for bias, h in zip(system.bias, system.hidden, strict=True):
        expected = torch.zeros(4, h)
        expected[1] = 1
        assert torch.equal(bias, expected)


def test_what_reads_the_attention_of_mfn_begins_as_many_times_larger_as_it_is_small():
    fusion = MemoryFusion(WIDTHS, 32, memory=16)
    for network in (fusion.update, fusion.keep, fusion.admit):
        weight, seen = network.first.weight, 2 * 32
        bound = weight.shape[1] ** -0.5
        attended, remembered = weight[:, :seen] / seen, weight[:, seen:]
        assert 0.9 * bound < attended.abs().max() <= bound
        assert not remembered.numel() or remembered.abs().max() <= bound


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        self.count += name in ("mm", "addmm", "bmm", "baddbmm", "linear")
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "a_step"),
    [
        ("mfn", 3),  # all LSTMs; both layers of both gates
        ("marn", 5),  # all LSTHMs; both layers of A; all C_m; G
        ("rmfn", 1 + 1 + 3 * 2 + 1 + 3 + 1),  # LSTHMs; M; HIGHLIGHT; FUSE, inputs at once; S
    ],
)
def test_a_step_has_as_many_products_for_any_number_of_modalities(name, a_step):
    for count in (1, 3):
        fusion, counts = make(name, WIDTHS[:count]), []
        for time in (6, 7):
            with Products() as products, torch.no_grad():
                fusion(sequences(WIDTHS[:count], time=time))
            counts.append(products.count)
        assert counts[1] - counts[0] == a_step
