"""CM-BERT against the published formula, written out with full maps and additive masks; padding
leaks nowhere."""

import copy
import math

import pytest
import torch
from torch import nn

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.unimodals.cm_bert import CMBERT, CMBERTPooled, MapSum, parameter_groups
from deq_fusion.unimodals.pretrained import BertEncoder

LENGTH, AUDIO = 8, 5
SIZES = {"length": LENGTH, "inner": 3}
STILL = {"attention_dropout": 0.0, "dropout": 0.0}
TOKENS = torch.tensor(
    [[2, 7, 9, 4, 3, 0, 0, 0], [2, 5, 6, 8, 9, 4, 7, 3], [2, 3, 0, 0, 0, 0, 0, 0]]
)
VALID = TOKENS > 0
DEQ = {"deq": {"groups": 2}}  # of four entries: of two a GroupNorm leaves their signs only
param = pytest.mark.parametrize


class Words(nn.Module):
    """Stands for BERT: states of words in their places."""

    def __init__(self, dim=6, words=12, length=LENGTH):
        super().__init__()
        self.dim = dim
        self.embeddings = nn.ModuleDict({"word": nn.Embedding(words, dim)})
        self.register_buffer("places", torch.randn(20, dim)[:length])

    def forward(self, tokens):
        return self.embeddings["word"](tokens) + self.places


class ColumnMap(nn.Module):
    """Mixes the entries of a column."""

    def __init__(self, length):
        super().__init__()
        self.text, self.audio = nn.Linear(length, length), nn.Linear(length, length)

    def forward(self, maps):
        return self.text(maps[0]) + self.audio(maps[1])


def map_sum(host, s_t, s_a):
    w_t, w_a = host.fusion.weights
    return w_t * s_t + w_a * s_a + host.fusion.bias


def column_map(host, s_t, s_a):
    """A convolution of kernel 1 whose channels are the queries, as the release's are."""
    w_f = 0
    for linear, s in ((host.fusion.text, s_t), (host.fusion.audio, s_a)):
        w_f = w_f + torch.einsum("oi,bij->boj", linear.weight, s) + linear.bias[:, None]
    return w_f


def published(host, fuse, tokens, audio):
    """The prediction with maps of all positions, additive masks, and Y at every token."""
    states = host.text(tokens)
    here = (tokens > 0).to(states.dtype)[:, :, None]
    text = here * torch.einsum("ic,btc->bti", host.project_text.weight, states)
    norm = torch.stack([sample.square().sum().sqrt() for sample in text]).detach()
    text = text / norm.sqrt()[:, None, None]
    audio = here * torch.einsum("ic,btc->bti", host.project_audio.weight, audio)
    s_t, s_a = (torch.einsum("bti,bsi->bts", x, x).clamp(min=0) for x in (text, audio))
    mask = -10000 * (1 - here)  # (batch, length, 1), of queries
    logits = fuse(host, s_t, s_a) + mask + mask.transpose(1, 2)
    p = (logits - logits.amax(2, keepdim=True)).exp()
    p = p / p.sum(2, keepdim=True)
    y = (p[:, :1] @ states + states[:, :1]) @ host.dense.weight.T + host.dense.bias
    y = (y - y.mean(2, keepdim=True)) / y.var(2, correction=0, keepdim=True).sqrt()
    y = y * host.norm.weight + host.norm.bias
    return y[:, 0] @ host.regressor.weight.T + host.regressor.bias


def audio_of(tokens):
    return torch.randn(*tokens.shape, AUDIO)


def make(fusion, **options):
    return CMBERT(Words(), AUDIO, fusion, **SIZES | STILL | options)


def deq(**options):
    return DEQFusion([LENGTH, LENGTH], LENGTH, **{"groups": 2, "on_failure": "raise"} | options)


def registered(name):
    fusion, width = FUSIONS[name]([LENGTH, LENGTH], LENGTH, **DEQ.get(name, {}))
    return make(fusion, fused_dim=width)


def pooled(name, **options):
    fusion, width = FUSIONS[name]([6, 4], 8, **DEQ.get(name, options))
    return CMBERTPooled(Words(), AUDIO, fusion, fused_dim=width, inner=4, dropout=0.0)


def perturbed(host):
    """Moves every parameter off its start, so that none is 0 or 1."""
    with torch.no_grad():
        for parameter in host.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return host


HOSTS = {
    "sum": lambda: make(MapSum()),
    "columns": lambda: make(ColumnMap(LENGTH)),
    "deq": lambda: make(deq()),
    "concat": lambda: registered("concat"),
    "pooled concat": lambda: pooled("concat"),
    "pooled deq": lambda: pooled("deq"),
}
hosts = param("host", [pytest.param(make, id=name) for name, make in HOSTS.items()])


@param(("fusion", "fuse"), [(MapSum, map_sum), (lambda: ColumnMap(LENGTH), column_map)])
def test_the_prediction_is_the_published_formula(fusion, fuse, double):
    host, audio = perturbed(make(fusion())), audio_of(TOKENS)
    result = host([TOKENS, audio])
    assert result.shape == (3, 1)
    expected = published(host, fuse, TOKENS, audio)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    cotangent, parameters = torch.randn(3, 1), list(host.parameters())
    grads = torch.autograd.grad(result, parameters, cotangent)
    expected = torch.autograd.grad(expected, parameters, cotangent)
    torch.testing.assert_close(grads, expected, rtol=1e-7, atol=1e-9)


def test_the_pooled_prediction_is_its_formula(double):
    host, audio = perturbed(pooled("concat")), audio_of(TOKENS)
    expected = []
    for tokens, sound in zip(TOKENS, audio, strict=True):
        n = int((tokens > 0).sum())
        heard = sum(host.project_audio.weight @ step for step in sound[:n]) / n
        vector = torch.cat([host.text(tokens)[0], heard])
        expected.append(host.regressor.weight @ vector + host.regressor.bias)
    torch.testing.assert_close(host([TOKENS, audio]), torch.stack(expected))


def test_dropout_is_where_it_is_published():
    host = CMBERT(Words(), AUDIO, MapSum(), **SIZES)
    assert (host.attention_dropout.p, host.dropout.p) == (0.3, 0.1)
    seen = []
    for dropout in (host.attention_dropout, host.dropout):
        dropout.register_forward_hook(lambda m, args, out: seen.append((m.p, out.shape)))
    host([TOKENS, audio_of(TOKENS)])
    assert seen == [(0.3, (3, LENGTH)), (0.1, (3, 6)), (0.1, (3, 6))]


def bert_base():
    text = Words(dim=768, length=50)
    return text, sum(p.numel() for p in text.parameters())


@param("cell", ["sum", "deq"])
def test_it_has_the_published_number_of_parameters(cell):
    text, outside = bert_base()
    fusion = MapSum()
    if cell == "deq":
        fusion = DEQFusion.from_preset("released_mosi", [50, 50], 50, groups=5)
    count = sum(p.numel() for p in CMBERT(text, AUDIO, fusion).parameters()) - outside
    host = 768 * 30 + 5 * 30 + (768 * 768 + 768) + 2 * 768 + (768 + 1)
    # two linear maps and a normalisation in each of two modalities' cells and in the fuse cell
    # (there one map is the gate), two scalars and a bias
    fused = 3 if cell == "sum" else 3 * (2 * (50 * 50 + 50) + 2 * 50) + 3
    assert (count, host) == (host + fused, 616_087)


def test_the_pooled_variant_has_a_projection_and_a_regressor():
    text, outside = bert_base()
    fusion, width = FUSIONS["concat"]([768, 30], 64)
    host = CMBERTPooled(text, AUDIO, fusion, fused_dim=width)
    count = sum(p.numel() for p in host.parameters()) - outside
    assert count == 5 * 30 + (768 + 30 + 1)


def run(host, audio):
    """The prediction, and the gradients of audio and of every parameter."""
    host, audio = copy.deepcopy(host), audio.clone().requires_grad_()
    result = host([TOKENS, audio])
    torch.manual_seed(5)
    result.backward(torch.randn_like(result))
    return result.detach(), audio.grad, [p.grad for p in host.parameters()]


@hosts
def test_what_lies_at_padding_changes_nothing(host):
    host, audio = host(), audio_of(TOKENS)
    before = run(host, audio)
    with torch.no_grad():
        host.text.embeddings["word"].weight[0] = 1e3 * torch.randn(host.text.dim)
    after = run(host, audio.masked_fill(~VALID[:, :, None], torch.nan))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not after[1][~VALID].any() and after[1][VALID].any()


@param("host", [lambda n: make(MapSum(), length=n), lambda n: pooled("concat")])
def test_longer_padding_changes_nothing(host):
    short, longer, audio = host(LENGTH), host(12), audio_of(TOKENS)
    longer.load_state_dict(short.state_dict() | {"text.places": longer.text.places})
    places = torch.randn(12, 6)
    short.text.places, longer.text.places = places[:LENGTH], places
    pad = nn.functional.pad
    result = longer([pad(TOKENS, (0, 4)), pad(audio, (0, 0, 0, 4))])
    torch.testing.assert_close(result, short([TOKENS, audio]))


@hosts
def test_a_sample_does_not_depend_on_its_batch(host):
    host, audio = host(), audio_of(TOKENS)
    alone = [host([t[None], a[None]]) for t, a in zip(TOKENS, audio, strict=True)]
    torch.testing.assert_close(host([TOKENS, audio]), torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_only_tokens_are_solved():
    host = make(deq())
    host([TOKENS, audio_of(TOKENS)]).sum().backward()
    info = host.fusion.info
    assert info.steps.shape[0] == VALID.sum() == 15 and bool(info.converged.all())
    for stats in (*info.forward.values(), *info.backward.values()):
        assert stats.steps.shape == (15,)


def test_the_solved_columns_are_those_of_the_maps(double):
    host, audio = make(deq(tol=1e-7, max_steps=200)), audio_of(TOKENS)

    def solved(host, s_t, s_a):
        w_f = torch.zeros_like(s_t)
        for b, j in VALID.nonzero().tolist():
            w_f[b, :, j] = host.fusion([s_t[b, :, j][None], s_a[b, :, j][None]])[0]
        return w_f

    expected = published(host, solved, TOKENS, audio)
    torch.testing.assert_close(host([TOKENS, audio]), expected, rtol=1e-6, atol=1e-6)


@hosts
def test_every_parameter_gets_a_gradient(host):
    host = host()
    out = host([TOKENS, audio_of(TOKENS)])
    out.backward(torch.randn_like(out))
    for name, parameter in host.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # the softmax takes out what is added to all its inputs
        shift = name in ("fusion.bias", "score.bias", "fusion.text.bias", "fusion.audio.bias")
        assert (parameter.grad.abs().max() < 1e-6) == shift, name


def test_audio_that_is_silent_at_the_first_token_needs_a_fusion_of_columns():
    audio = audio_of(TOKENS)
    audio[:, 0] = 0

    def change(host):
        return (host([TOKENS, audio]) - host([TOKENS, 2 * audio])).abs().max()

    assert change(make(MapSum())) == 0
    assert change(make(deq())) > 1e-5


@param("host", ["concat", "weighted_sum", "deq", "pooled concat", "pooled deq", "pooled late"])
def test_it_overfits_a_small_batch_with_any_fusion(host):
    name = host.removeprefix("pooled ")
    options = {"outputs": 1, "task": "regression"} if name == "late" else {}
    host = registered(name) if name == host else pooled(name, **options)
    audio, truth = audio_of(TOKENS), torch.tensor([[-2.0], [0.5], [3.0]])
    optimizer = torch.optim.Adam(host.parameters(), lr=0.02)
    for _ in range(300):
        loss = 0.5 * (host([TOKENS, audio]) - truth).square().mean()
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


@pytest.fixture
def bert():
    pytest.importorskip("transformers")
    return BertEncoder(vocabulary=12, width=8, layers=1, length=LENGTH, pooled=False)


def test_it_trains_bert(bert):
    host, audio = CMBERT(bert, AUDIO, deq(), **SIZES | STILL).eval(), audio_of(TOKENS)
    host([TOKENS, audio]).backward(torch.randn(3, 1))
    for name, parameter in host.named_parameters():
        shift = name.endswith(("key.bias", "score.bias"))  # taken out by a softmax
        assert (parameter.grad.abs().max() > 0) or shift, name
    torch.testing.assert_close(host([TOKENS.float(), audio]), host([TOKENS, audio]))


def names(model, group):
    kept = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in kept}


@param("frozen", [False, True])
def test_parameter_groups_are_the_published_ones(bert, frozen):
    host = CMBERT(bert, AUDIO, deq(), **SIZES, published_frozen=frozen)
    groups = parameter_groups(host)
    rates = [(group["lr"], group["weight_decay"]) for group in groups]
    assert rates == [(2e-5, 0.01), (2e-5, 0.0), (0.01, 0.01)]
    encoder, plain, fusion = (names(host, group) for group in groups)
    layer = "text.model.encoder.layer.0."
    assert {layer + "attention.self.query.weight", layer + "output.dense.weight"} <= encoder
    assert {layer + "attention.output.LayerNorm.weight", "norm.weight", "dense.bias"} <= plain
    host_weights = {"project_text.weight", "project_audio.weight", "dense.weight"}
    learnt = {f"fusion.{n}" for n, _ in host.fusion.named_parameters() if "bias" not in n}
    assert fusion == host_weights | learnt
    everything = {name for name, _ in host.named_parameters()}
    left_out = everything - encoder - plain - fusion
    embeddings = {name for name in everything if name.startswith("text.model.embeddings.")}
    assert len(embeddings) == 5
    assert left_out == (embeddings | {"regressor.weight", "regressor.bias"} if frozen else set())
    assert sum(len(group["params"]) for group in groups) == len(everything - left_out)
    torch.optim.AdamW(groups)


def test_linear_maps_begin_as_bert_begins_its_own():
    host = CMBERT(Words(dim=200), AUDIO, MapSum())
    for linear in (host.dense, host.regressor):
        assert not linear.bias.any()
        torch.testing.assert_close(linear.weight.std().item(), 0.02, rtol=0.2, atol=0)
    bound = 1 / math.sqrt(200)  # the other maps as torch begins a convolution
    assert 0.95 * bound < host.project_text.weight.abs().max() <= bound


def test_wrong_inputs_are_refused():
    host, audio = make(MapSum()), audio_of(TOKENS)
    with pytest.raises(ValueError, match=r"tokens must be \(batch, 8\), got \(3, 7\)"):
        host([TOKENS[:, :7], audio[:, :7]])
    with pytest.raises(ValueError, match=r"tokens must be \(batch, length\), got \(8,\)"):
        pooled("concat")([TOKENS[0], audio[0]])
    with pytest.raises(ValueError, match=r"audio must be \(3, 8, 5\), .* got \(3, 8, 4\)"):
        host([TOKENS, audio[:, :, :4]])
    with pytest.raises(ValueError, match=r"must begin with a token, but 2 .*\(first: \[0, 2\]\)"):
        host([TOKENS.flip(1), audio])


def test_an_encoder_of_one_vector_a_text_is_refused():
    host = make(MapSum())
    host.text.forward = lambda tokens: torch.zeros(3, 6)
    with pytest.raises(ValueError, match=r"\(3, 8, 'dim'\), got \(3, 6\); .*pooled=False"):
        host([TOKENS, audio_of(TOKENS)])


def test_a_fusion_of_another_width_is_refused():
    host = make(FUSIONS["concat"]([LENGTH, LENGTH], LENGTH)[0])
    with pytest.raises(ValueError, match=r"must return \(15, 8\), .* got \(15, 16\); fused_dim"):
        host([TOKENS, audio_of(TOKENS)])
