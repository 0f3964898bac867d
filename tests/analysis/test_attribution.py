"""Attribution on a residual whose parts are known, and on tiny random models."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from analysis.attribution import (
    NotAdditive,
    contribution,
    freeze_norm,
    head_contributions,
    shares,
    source_contributions,
    sum_error,
)

D = 32


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rms_norm(h, gain, eps=1e-5):
    return gain * h / (h.square().mean() + eps).sqrt()


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_contributions_and_bias_sum_to_the_logit(kind):
    parts, gain, direction = draw(7, D), 1 + draw(D, seed=1) / 4, draw(D, seed=2)
    bias = draw(D, seed=3) if kind == "layer" else torch.zeros(D)
    total = parts.sum(0)
    normed = torch.nn.functional.layer_norm(total, (D,), gain, bias, 1e-5) if kind == "layer" else rms_norm(total, gain)
    norm = freeze_norm(total, normed, gain, bias, kind)
    values = contribution(parts, norm.pull_back(direction))
    logit = float(normed @ direction)
    assert sum_error(torch.cat([values, (bias @ direction).double()[None]]), logit) < 1e-5
    # each part is what the frozen norm makes of it alone
    part = parts[0].double()
    centred = part - part.mean() if kind == "layer" else part
    assert float(values[0]) == pytest.approx(
        float((norm.scale * gain.double() * centred) @ direction.double()), rel=1e-9
    )


def test_frozen_scale_holds_the_epsilon_of_the_norm():
    tiny = draw(D) * 1e-3
    norm = freeze_norm(tiny, rms_norm(tiny, torch.ones(D), eps=1e-2), torch.ones(D), torch.zeros(D), "rms")
    assert norm.scale == pytest.approx(10.0, rel=1e-3)


def test_a_norm_of_another_kind_is_refused():
    h = draw(D) + 3.0
    layer = torch.nn.functional.layer_norm(h, (D,))
    with pytest.raises(NotAdditive, match="not a rms norm"):
        freeze_norm(h, layer, torch.ones(D), torch.zeros(D), "rms")


@pytest.mark.parametrize("hidden", [torch.zeros(D), torch.full((D,), torch.inf)])
def test_a_zero_or_infinite_residual_is_refused(hidden):
    with pytest.raises(NotAdditive, match="finite and not zero"):
        freeze_norm(hidden, hidden, torch.ones(D), torch.zeros(D), "rms")


def test_a_post_norm_is_pulled_back_before_the_heads():
    heads, gain, direction = draw(4, D), 1 + draw(D, seed=5) / 4, draw(D, seed=6).double()
    added = rms_norm(heads.sum(0), gain)
    post = freeze_norm(heads.sum(0), added, gain, torch.zeros(D), "rms")
    values = contribution(heads, post.pull_back(direction))
    assert float(values.sum()) == pytest.approx(float(added.double() @ direction), rel=1e-5)


def test_sources_sum_to_their_head():
    pattern = torch.softmax(draw(9), -1)
    values, w_o, pulled = draw(9, 8, seed=1), draw(8, D, seed=2), draw(D, seed=3).double()
    sources = source_contributions(pattern, values, w_o, pulled)
    head = head_contributions((pattern @ values)[None], w_o[None], pulled)
    assert float(sources.sum()) == pytest.approx(float(head), rel=1e-5)
    assert float(sources[4]) == pytest.approx(float(pattern[4] * (values[4] @ w_o).double() @ pulled), rel=1e-5)


def test_shares_are_given_only_without_cancellation():
    assert [m.value for m in shares(torch.tensor([3.0, 1.0, -0.0], dtype=torch.float64))] == pytest.approx([75, 25, 0])
    cancelling = shares(torch.tensor([2.0, -1.0], dtype=torch.float64))  # sum of |parts| is exactly 3 times the total
    assert {m.status for m in cancelling} == {"not_applicable"}
    assert {m.status for m in shares(torch.zeros(2, dtype=torch.float64))} == {"not_applicable"}


def test_sum_error_is_relative_to_the_largest_part():
    assert sum_error(torch.tensor([100.0, -99.0], dtype=torch.float64), 2.0) == pytest.approx(0.01)
    assert sum_error(torch.zeros(2, dtype=torch.float64), 0.0) == 0.0


def _llama():
    config = LlamaConfig(
        hidden_size=D,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=97,
    )
    model = LlamaForCausalLM(config)
    blocks = [(layer, layer.self_attn.o_proj, layer.mlp) for layer in model.model.layers]
    return model, blocks, model.model.norm, "rms", False


def _gpt2():
    model = GPT2LMHeadModel(GPT2Config(n_embd=D, n_layer=2, n_head=4, n_positions=64, vocab_size=97))
    blocks = [(block, block.attn.c_proj, block.mlp) for block in model.transformer.h]
    return model, blocks, model.transformer.ln_f, "layer", True


@pytest.mark.parametrize("build", [_llama, _gpt2])
def test_components_of_a_tiny_model_sum_to_its_logit(build):
    torch.manual_seed(0)
    model, blocks, norm, kind, transposed = build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    seen = {}

    def keep(key, tensor):
        seen[key] = tensor[0, -1]

    for i, (block, o_proj, mlp) in enumerate(blocks):
        o_proj.register_forward_pre_hook(lambda _, args, i=i: keep(("z", i), args[0]))
        mlp.register_forward_hook(lambda _, __, out, i=i: keep(("mlp", i), out))
        block.register_forward_pre_hook(lambda _, args, i=i: keep(("in", i), args[0]))
    norm.register_forward_pre_hook(lambda _, args: keep("pre", args[0]))
    norm.register_forward_hook(lambda _, __, out: keep("post", out))
    with torch.no_grad():
        logits = model(torch.arange(11)[None]).logits[0, -1]
    bias = norm.bias.detach() if kind == "layer" else torch.zeros(D)
    frozen = freeze_norm(seen["pre"], seen["post"], norm.weight.detach(), bias, kind)
    target = int(logits.argmax())
    direction = model.get_output_embeddings().weight.detach()[target]
    pulled = frozen.pull_back(direction)
    parts = [contribution(seen["in", 0], pulled)[None], (bias @ direction).double()[None]]
    for i, (_, o_proj, _) in enumerate(blocks):
        weight = o_proj.weight.detach() if transposed else o_proj.weight.detach().T
        parts.append(head_contributions(seen["z", i].reshape(4, -1), weight.reshape(4, -1, D), pulled))
        parts.append(contribution(seen["mlp", i], pulled)[None])
        if o_proj.bias is not None:
            parts.append(contribution(o_proj.bias.detach(), pulled)[None])
    assert float(torch.cat(parts).sum()) == pytest.approx(float(logits[target]), rel=1e-4)
