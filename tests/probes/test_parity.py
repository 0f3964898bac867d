"""Captures against plain Hugging Face eager attention and against TransformerBridge's hooks (docs/methods, decision 13)."""

import pytest
import torch

from probes.errors import ModelRefused
from probes.model.capture import Capture, special_positions
from probes.model.forward import forward
from probes.model.health import relative_error
from probes.model.loaded import LoadedModel
from probes.model.replay import BlockReplay
from probes.model.tokenise import pieces, text_ids
from probes.progress import Progress
from tests import tiny

ALL_SITES = frozenset({"resid", "head_z", "mlp_out"})
ALL_REDUCTIONS = frozenset({"column_sum", "row_entropy", "value_norms", "update_norms"})
CASES = {
    **{name: (name, {}) for name in tiny.ARCHITECTURES},
    "tied": ("llama", {"tie_word_embeddings": True}),
    "untied": ("llama", {"tie_word_embeddings": False}),
    "no_gqa": ("llama", {"num_key_value_heads": 4}),
    "one_layer": ("llama", {"num_hidden_layers": 1}),
    "one_head": ("llama", {"num_attention_heads": 1, "num_key_value_heads": 1}),
}


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    name, changes = CASES[request.param]
    return tiny.loaded(name, **changes)


def capture_of(model: LoadedModel, text: str = tiny.TEXT) -> Capture:
    ids = torch.tensor(text_ids(model, text))
    kept = forward(model, ids, ALL_SITES, ALL_REDUCTIONS, Progress())
    return Capture(model, ids, pieces(model.tokenizer, ids), special_positions(model, ids), kept.__getitem__)


def eager(
    model: LoadedModel, ids: torch.Tensor
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Logits, hidden states and attentions by transformers' own code, from a module that never saw ours."""
    model.hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = model.hf(ids[None], output_hidden_states=True, output_attentions=True, use_cache=False)
    finally:
        model.hf.set_attn_implementation("eigenscope")
    return out.logits[0], tuple(h[0] for h in out.hidden_states), tuple(a[0] for a in out.attentions)


def test_residual_points_logits_and_sink_scores_equal_plain_eager(model: LoadedModel) -> None:
    capture = capture_of(model)
    logits, states, attentions = eager(model, capture.token_ids)
    last = model.facts.n_layers
    for point in range(last):
        assert relative_error(capture.resid(point), states[point]) <= 1e-5
    assert relative_error(model.normalise(capture.resid(last)), states[last]) <= 1e-5
    assert relative_error(model.unembed(capture.resid(last)), logits) <= 1e-5
    column_sum = torch.stack([a.double().sum(dim=1) for a in attentions])
    torch.testing.assert_close(capture.attention.column_sum, column_sum, rtol=1e-5, atol=1e-5)
    entropy = torch.stack([-torch.xlogy(a, a).sum(dim=-1) for a in attentions])
    torch.testing.assert_close(capture.attention.row_entropy, entropy, rtol=1e-4, atol=1e-4)


def test_residual_points_and_patterns_equal_the_bridge_hooks(model: LoadedModel) -> None:
    capture = capture_of(model)
    with torch.no_grad():
        logits, cache = model.bridge.run_with_cache(capture.token_ids[None])
    for block in range(model.facts.n_layers):
        assert relative_error(capture.resid(block), cache[f"blocks.{block}.hook_in"][0]) <= 1e-4
        assert relative_error(capture.resid(block + 1), cache[f"blocks.{block}.hook_out"][0]) <= 1e-4
        pattern = cache[f"blocks.{block}.attn.hook_pattern"][0]
        torch.testing.assert_close(capture.replay(block).pattern, pattern, rtol=1e-4, atol=1e-5)
    last = model.unembed(capture.resid(model.facts.n_layers))
    assert relative_error(last, logits[0]) <= 1e-4


def test_components_add_up_and_a_replay_equals_the_pass(model: LoadedModel) -> None:
    capture = capture_of(model)
    for block in range(model.facts.n_layers):
        again = capture.replay(block, ())
        assert relative_error(capture.mlp_out(block), again.mlp_out) <= 1e-5
        torch.testing.assert_close(capture.attn_norm[block], again.attn_out.norm(dim=-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(capture.mlp_norm[block], again.mlp_out.norm(dim=-1), rtol=1e-4, atol=1e-5)
        total = capture.resid(block) + again.attn_out + again.mlp_out
        assert relative_error(total, capture.resid(block + 1)) <= 1e-5
        torch.testing.assert_close(
            again.neurons @ again.w_out + bias_of(model, block), mlp_raw(model, block, again), rtol=1e-4, atol=1e-4
        )


def bias_of(model: LoadedModel, block: int) -> torch.Tensor:
    bias = getattr(model.sites.blocks[block].mlp_down, "bias", None)
    return torch.zeros(model.facts.d_model) if bias is None else bias.detach()


def mlp_raw(model: LoadedModel, block: int, again: BlockReplay) -> torch.Tensor:
    """The down projection run by its own module: what the neurons say must be what it says."""
    with torch.no_grad():
        return model.sites.blocks[block].mlp_down(again.neurons)


def hooks(model: LoadedModel) -> list[tuple[int, int, bool]]:
    """Hooks and patched forwards by module; transformers itself leaves a hook where it was asked for hidden states."""
    return [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.hf.modules()]


def test_no_hook_and_no_patched_forward_is_left(model: LoadedModel) -> None:
    before = hooks(model)
    capture_of(model).replay(model.facts.n_layers - 1)
    assert hooks(model) == before


def test_value_norms_are_of_the_values_each_query_head_reads() -> None:
    model = tiny.loaded("llama")
    capture = capture_of(model)
    attn = model.hf.model.layers[1].self_attn
    with torch.no_grad():
        normed = model.hf.model.layers[1].input_layernorm(capture.resid(1))
        values = attn.v_proj(normed).view(capture.n_tokens, 2, 8).repeat_interleave(2, dim=1).transpose(0, 1)
    torch.testing.assert_close(capture.attention.value_l1[1], values.abs().sum(-1), rtol=1e-5, atol=1e-5)
    head = 3
    moved = values[head] @ attn.o_proj.weight.T[head * 8 : head * 8 + 8].detach()
    torch.testing.assert_close(capture.attention.value_out[1, head], moved.norm(dim=-1), rtol=1e-4, atol=1e-4)


def test_gemma2_alternates_sliding_and_full_attention() -> None:
    assert tiny.loaded("gemma2").facts.windows == (16, None, 16)


@pytest.mark.parametrize("name", tiny.REFUSED)
def test_architectures_that_ignore_our_attention_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ModelRefused, match="attention"):
        tiny.loaded(name)


def test_a_long_prompt_in_query_blocks_equals_eager() -> None:
    model = tiny.loaded("gemma2", max_position_embeddings=1024, sliding_window=300)
    ids = torch.randint(4, tiny.VOCAB, (700,), generator=torch.Generator().manual_seed(1))
    kept = forward(model, ids, ALL_SITES, ALL_REDUCTIONS, Progress())
    _, states, attentions = eager(model, ids)
    assert relative_error(kept["resid.2"], states[2]) <= 1e-5
    expected = torch.stack([a.double().sum(dim=1) for a in attentions])
    torch.testing.assert_close(kept["attention.column_sum"], expected, rtol=1e-5, atol=1e-4)
