"""The GRU of skip-thought by its equations, its dropout, its release's layout; padding."""

import numpy as np
import pytest
import torch
from torch.nn.functional import dropout

from deq_fusion.unimodals.skip_thought import SkipThought

WORDS, DIM, WIDTH = 8, 5, 4
TOKENS = torch.tensor([[3, 1, 4, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0], [5, 6, 2, 1, 7]])
UNIT = [[torch.ones(1, WIDTH)] * 3, [torch.ones(1, DIM)] * 3]


def small(**options):
    return SkipThought(WORDS, DIM, embedding=WIDTH, **options)


def by_hand(encoder, tokens, masks=UNIT):
    """The state after the last word of every row, words and gates one by one."""
    states, (of_words, of_states) = [], masks
    for k, row in enumerate(tokens):
        h = torch.zeros(DIM)
        for word in row[row > 0]:
            x, inside, before = encoder.embedding.weight[word], [], []
            for g in range(3):
                layer, mask = encoder.inputs[g], of_words[g][k % len(of_words[g])]
                inside.append(layer.weight @ (mask * x) + layer.bias)
                mask = of_states[g][k % len(of_states[g])]
                before.append(encoder.recurrent[g].weight @ (mask * h))
            r, i = (1 / (1 + torch.exp(-(inside[g] + before[g]))) for g in range(2))
            n = torch.tanh(inside[2] + r * before[2])
            h = (1 - i) * n + i * h
        states.append(h)
    return torch.stack(states)


def release():
    """Weights in the layout of `uni_skip.npz`, as NumPy's, and something that is not needed."""
    shapes = {
        "encoder_W": (WIDTH, 2 * DIM),
        "encoder_U": (DIM, 2 * DIM),
        "encoder_b": (2 * DIM,),
        "encoder_Wx": (WIDTH, DIM),
        "encoder_Ux": (DIM, DIM),
        "encoder_bx": (DIM,),
        "embedding": (WORDS, WIDTH),
        "decoder_W": (2, 3),
    }
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_follows_the_equations(double):
    encoder = small().eval()
    torch.testing.assert_close(encoder(TOKENS), by_hand(encoder, TOKENS))
    assert not encoder(TOKENS)[2].any()  # a question without words


def test_six_masks_stay_fixed_over_the_sequence(double):
    encoder, tokens = small(), TOKENS[[0, 3]]
    torch.manual_seed(1)
    state = encoder(tokens)
    torch.manual_seed(1)
    masks = [[dropout(torch.ones(2, w), 0.25) for _ in range(3)] for w in (WIDTH, DIM)]
    torch.testing.assert_close(state, by_hand(encoder, tokens, masks))
    assert not torch.allclose(state, encoder(tokens))  # others for the next forward


def test_the_release_is_read_in_its_layout():
    given = release()
    encoder = small(weights=given).eval()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h = np.zeros(DIM)
    for word in (5, 6, 2):  # Kiros's order: reset, then update; rows are inputs
        x = given["embedding"][word]
        gates = sigmoid(x @ given["encoder_W"] + given["encoder_b"] + h @ given["encoder_U"])
        r, u = gates[:DIM], gates[DIM:]
        new = np.tanh(x @ given["encoder_Wx"] + given["encoder_bx"] + r * (h @ given["encoder_Ux"]))
        h = u * h + (1 - u) * new
    result = encoder(torch.tensor([[5, 6, 2, 0]]))[0].detach().numpy()
    np.testing.assert_allclose(result, h, rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_are_refused():
    given = release()
    with pytest.raises(ValueError, match=r"'encoder_Ux' of shape \(5, 5\), got none"):
        small(weights={name: w for name, w in given.items() if name != "encoder_Ux"})
    given["embedding"] = given["embedding"][1:]
    with pytest.raises(ValueError, match=r"'embedding' of shape \(8, 4\), got of shape \(7, 4\)"):
        small(weights=given)


def test_padding_and_batch_mates_change_nothing():
    encoder = small().eval()
    state = encoder(TOKENS)
    longer = torch.cat([TOKENS, torch.zeros(4, 3, dtype=torch.long)], dim=1)
    torch.testing.assert_close(encoder(longer), state)
    torch.testing.assert_close(encoder(TOKENS.flip(1)[:, :1]), encoder(TOKENS[:, -1:]))
    torch.testing.assert_close(encoder(TOKENS[:1]), state[:1])
    with torch.no_grad():
        encoder.embedding.weight[0] = torch.nan
    torch.testing.assert_close(encoder(TOKENS), state)


def test_has_the_published_size():
    with torch.device("meta"):
        encoder = SkipThought(1000)
    gates = 3 * (620 * 2400 + 2400) + 3 * 2400 * 2400
    assert gates == 21_751_200
    assert sum(p.numel() for p in encoder.parameters()) == 1000 * 620 + gates


def test_every_parameter_learns_and_padding_does_not():
    encoder = small().double()
    state = encoder(TOKENS)
    assert state.dtype == torch.float64
    (state * torch.randn_like(state)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert (encoder.embedding.weight.grad.abs().sum(1) > 0).tolist() == [False] + [True] * 7


@pytest.mark.parametrize(
    "tokens, message",
    [
        (TOKENS[0], r"must be \(batch, length\) integers, got \(5,\)"),
        (TOKENS.float(), "got .* of torch.float32"),
        (TOKENS + 1, "from 0 to 7, one of `words`, got 1 to 8"),
        (TOKENS - 1, "got -1 to 6"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        small()(tokens)
