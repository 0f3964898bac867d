"""The lens kernel against the formulas written out in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from analysis.lens import (
    CHUNK_ROWS,
    NO_TARGET,
    View,
    final_of,
    mean_corrected,
    mismatched,
    read,
    read_views,
    scaled_confidence,
)

VOCAB = 97


def logits(rows: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.fixture
def pair():
    """Lens logits, output logits, targets and controls of six rows."""
    targets = torch.tensor([3, 0, 96, 50, 7, NO_TARGET])
    return logits(6, 1), logits(6, 2), targets, torch.tensor([5, 5, 1, 2, NO_TARGET, 4])


def reading_of(pair, **options):
    lens, output, targets, controls = pair
    return read(lens.clone(), final_of(output), targets, controls, **{"k": 10, **options})


def test_entropy_and_divergences_are_those_of_the_written_out_formulas(pair):
    lens, output, _, _ = pair
    p, q = torch.log_softmax(output.double(), -1), torch.log_softmax(lens.double(), -1)
    middle = torch.log((p.exp() + q.exp()) / 2)
    reading = reading_of(pair, js=True)
    expected = {
        "entropy": -(q.exp() * q).sum(-1),
        "kl": (p.exp() * (p - q)).sum(-1),
        "kl_reverse": (q.exp() * (q - p)).sum(-1),
        "js": ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2,
        "top1_nlp": -q.max(-1).values,
        "ce_final": -q.gather(1, output.argmax(-1, keepdim=True))[:, 0],
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(reading, name).double(), value, rtol=1e-5, atol=1e-5, msg=name)


def test_js_is_missing_unless_asked_for(pair):
    assert reading_of(pair).js.isnan().all()


def test_target_scores_are_those_of_the_target_and_missing_without_one(pair):
    lens, _, targets, controls = pair
    reading = reading_of(pair)
    nll = -torch.log_softmax(lens, -1)
    for i, target in enumerate(targets[:-1].tolist()):
        assert reading.ce[i] == pytest.approx(float(nll[i, target]), rel=1e-5)
        assert reading.rank[i] == 1 + int((lens[i] > lens[i, target]).sum())
    assert reading.ce[-1].isnan()
    assert reading.rank[-1].isnan()
    assert reading.rank_control[0] == 1 + int((lens[0] > lens[0, controls[0]]).sum())
    assert reading.rank_control[4].isnan()


def test_equal_logits_share_the_best_rank():
    tied = torch.zeros(1, VOCAB)
    tied[0, 4] = 5.0
    reading = read(tied, final_of(logits(1)), torch.tensor([9]), torch.tensor([4]), k=1)
    assert (reading.rank.item(), reading.rank_control.item()) == (2, 1)


def test_top_k_is_sorted_and_carries_probabilities(pair):
    lens = pair[0]
    reading = reading_of(pair, k=5)
    expected = torch.softmax(lens, -1).topk(5)
    assert torch.equal(reading.top_ids, expected.indices)
    torch.testing.assert_close(reading.top_prob, expected.values)


@pytest.mark.parametrize("vocab", [1024, 1000, 700])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_top_k_of_a_large_vocabulary_is_found_by_blocks(vocab, k):
    wide = torch.randn(6, vocab + 8, generator=torch.Generator().manual_seed(vocab))[:, :vocab] * 3
    wide[0, -k:] = 50.0 + torch.arange(k)  # in the columns after the last whole block
    wide[1, :k] = 50.0 + torch.arange(k)  # all in one block
    targets = torch.zeros(6, dtype=torch.long)
    expected = torch.softmax(wide, -1).topk(k)
    reading = read(wide.clone(), final_of(torch.randn(6, vocab)), targets, targets, k=k)
    assert torch.equal(reading.top_ids, expected.indices)
    torch.testing.assert_close(reading.top_prob, expected.values)


@pytest.mark.parametrize("k", [0, VOCAB + 1])
def test_k_outside_the_vocabulary_is_refused(pair, k):
    with pytest.raises(ValueError, match="1 to 97"):
        reading_of(pair, k=k)


def test_divergences_at_the_last_point_are_exactly_zero():
    output = logits(5, 3, spread=20.0)
    reading = read(
        output.clone(), final_of(output), torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long), k=1
    )
    assert reading.kl.eq(0).all()
    assert reading.kl_reverse.eq(0).all()
    assert reading.ce_final.equal(reading.top1_nlp)


def test_entropy_is_at_most_ln_v_and_reaches_it_for_equal_logits():
    zero = torch.zeros(1, 49152)
    reading = read(zero.clone(), final_of(zero), torch.tensor([0]), torch.tensor([1]), k=1)
    assert reading.entropy.item() == pytest.approx(math.log(49152), rel=1e-6)
    assert reading.entropy.item() == pytest.approx(10.80, abs=0.01)


def test_one_broken_row_is_missing_and_spares_the_others(pair):
    broken = pair[0].clone()
    broken[2, 8] = torch.nan
    reading = read(broken, final_of(pair[1]), pair[2], pair[3], k=3)
    whole = reading_of(pair, k=3)
    assert reading.top_ids[2].tolist() == [NO_TARGET] * 3
    assert all(getattr(reading, name)[2].isnan() for name in ("entropy", "kl", "rank", "ce", "top1_nlp"))
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(reading.kl[others], whole.kl[others])


@pytest.mark.parametrize("asked", [[View(3, "raw"), View(1, "mean"), View(0, "raw")], [View(0, "raw")]])
def test_streaming_equals_one_piece_and_stays_within_its_chunk(asked):
    n_points, n_positions = 4, 21
    grid = {
        view: logits(n_positions, 10 + view.layer + 7 * (view.variant == "mean")) for view in [View(3, "raw"), *asked]
    }
    targets, controls = torch.arange(n_positions), torch.arange(n_positions) + 1
    sizes = []

    def logits_of(views, where):
        piece = torch.cat([grid[view][where] for view in views])
        sizes.append(len(piece))
        return piece

    seen = {view: [] for view in asked}
    for _, views, reading in read_views(asked, n_positions, n_points, logits_of, targets, controls, k=2):
        for i, view in enumerate(views):
            seen[view].append((reading.kl[i], reading.rank[i], reading.top_ids[i]))
    assert max(sizes) <= CHUNK_ROWS
    final = final_of(grid[View(3, "raw")])
    for view, pieces in seen.items():
        whole = read(grid[view].clone(), final, targets, controls, k=2)
        torch.testing.assert_close(torch.cat([kl for kl, _, _ in pieces]), whole.kl)
        assert torch.equal(torch.cat([rank for _, rank, _ in pieces]), whole.rank)
        assert torch.equal(torch.cat([ids for _, _, ids in pieces]), whole.top_ids)


def test_lens_of_a_model_is_final_norm_then_unembedding_as_in_tuned_lens():
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, vocab_size=VOCAB
    )
    model = GPTNeoXForCausalLM(config).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        output = model(ids).logits[0]
        norm = model.gpt_neox.final_layer_norm
        for hidden in states[:-1]:
            h = hidden[0]
            reference = F.layer_norm(h, (32,), norm.weight, norm.bias, norm.eps) @ model.lm_head.weight.T
            lens = model.lm_head(norm(h))
            torch.testing.assert_close(lens, reference, rtol=1e-4, atol=1e-4)
            p, q = torch.log_softmax(output, -1), torch.log_softmax(reference, -1)
            expected = (p.exp() * (p - q)).sum(-1)
            targets = ids[0]
            torch.testing.assert_close(
                read(lens, final_of(output), targets, targets, k=1).kl, expected, rtol=1e-4, atol=1e-4
            )


def test_mean_correction_removes_a_shift_of_the_whole_layer():
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(40, 8, generator=generator)
    shift = torch.full((8,), 50.0)
    corrected = mean_corrected(final + shift, (final + shift).mean(0), final.mean(0))
    torch.testing.assert_close(corrected, final, atol=1e-4, rtol=0)


def test_controls_are_other_tokens_of_the_prompt_and_repeat_with_the_seed():
    pool = torch.tensor([4, 9, 4, 4, 7, 9, 2])
    own = torch.arange(7)
    controls = mismatched(pool, own, pool, seed=0)
    assert (controls != pool).all()
    assert set(controls.tolist()) <= set(pool.tolist())
    assert torch.equal(controls, mismatched(pool, own, pool, seed=0))
    assert any(not torch.equal(controls, mismatched(pool, own, pool, seed=s)) for s in range(1, 6))


def test_control_of_a_position_does_not_depend_on_which_positions_are_asked():
    pool = torch.arange(20)
    whole = mismatched(pool, torch.arange(20), pool, seed=3)
    some = torch.tensor([2, 11, 19])
    assert torch.equal(mismatched(pool[some], some, pool, seed=3), whole[some])


def test_there_is_no_control_without_another_token_or_without_a_target():
    assert mismatched(torch.tensor([5, 5]), torch.arange(2), torch.tensor([5, 5]), seed=0).tolist() == [NO_TARGET] * 2
    assert mismatched(torch.tensor([NO_TARGET]), torch.tensor([0]), torch.tensor([1, 2]), seed=0).item() == NO_TARGET


def test_microscope_variant_equals_its_formula_on_a_tiny_model():
    torch.manual_seed(1)
    config = GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=VOCAB
    )
    model = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        states = model(torch.arange(9)[None], output_hidden_states=True).hidden_states
        final = final_of(model.lm_head(states[-1][0]))
        targets = torch.zeros(9, dtype=torch.long)
        for hidden in states:
            unnormed = model.lm_head(hidden[0])
            theirs = -torch.log(torch.softmax(unnormed, -1)[torch.arange(9), unnormed.argmax(-1)])
            torch.testing.assert_close(read(unnormed.clone(), final, targets, targets, k=1).top1_nlp, theirs)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("global", [[1.0, 0.5], [0.0, 0.0]]),
        ("layer", [[1.0, 0.0], [0.5, 0.5]]),
        ("token", [[1.0, 1.0], [0.0, 0.0]]),
    ],
)
def test_confidence_is_scaled_per_scope_and_a_constant_scope_is_one_half(scope, expected):
    scaled = scaled_confidence(torch.tensor([[1.0, 2.0], [3.0, 3.0]]), scope)
    torch.testing.assert_close(scaled, torch.tensor(expected))
