"""The index against a computation that looks at every token of every latent, on small data with many ties."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from analysis.coactivation import coactivation
from analysis.latent_events import LatentEvents
from analysis.latent_index import IndexRules, LatentIndex, index_latents, latent_status

N_LATENTS, SILENT = 7, 3
RULES = IndexRules(
    top=4,
    bins=5,
    per_bin=2,
    around=2,
    histogram=8,
    tokens=3,
    min_seen=2,
    min_share=0.2,
    coactive_least=1,
    coactive_fired=1,
)

Sequence = tuple[Tensor, Tensor, Tensor]


def sequences(seed: int = 0) -> list[Sequence]:
    """Short and long sequences of few ids, some twice, with activations out of few values; latent 3 never fires."""
    generator = torch.Generator().manual_seed(seed)
    made: list[Sequence] = []
    for length in (1, 2, 3, 9, 9, 14, 6, 11):
        ids = torch.randint(0, 5, (length,), generator=generator)
        keep = torch.rand(length, generator=generator) < 0.8
        keep[0] = length == 1
        acts = torch.randint(-3, 4, (length, N_LATENTS), generator=generator).clamp(min=0) / 2
        acts[:, SILENT] = 0
        made.append((ids, keep, acts))
    return [*made, made[3], made[5]]


def events(data: list[Sequence]) -> LatentEvents:
    collected = LatentEvents(N_LATENTS)
    for ids, keep, acts in data:
        collected.add(ids, keep, acts[keep])
    return collected


@pytest.fixture(params=[0, 1, 2])
def data(request: pytest.FixtureRequest) -> list[Sequence]:
    return sequences(request.param)


@pytest.fixture
def index(data: list[Sequence]) -> LatentIndex:
    return index_latents(events(data), RULES)


def kept(data: list[Sequence], latent: int) -> list[tuple[int, int, int, float]]:
    """Sequence, position, token id and activation of every kept token."""
    return [
        (seq, pos, int(ids[pos]), float(acts[pos, latent]))
        for seq, (ids, keep, acts) in enumerate(data)
        for pos in range(len(ids))
        if keep[pos]
    ]


def window(data: list[Sequence], seq: int, pos: int) -> tuple[int, int]:
    return max(pos - RULES.around, 0), min(pos + RULES.around + 1, len(data[seq][0]))


def test_counts_sums_and_histograms(data: list[Sequence], index: LatentIndex) -> None:
    assert index.n_tokens == sum(int(keep.sum()) for _, keep, _ in data)
    assert index.n_left_out == sum(int((~keep).sum()) for _, keep, _ in data)
    for latent, row in enumerate(index.latents.itertuples()):
        values = np.array([value for *_, value in kept(data, latent) if value > 0])
        assert (row.latent, row.n_fired, row.density) == (latent, len(values), len(values) / index.n_tokens)
        if latent == SILENT:
            assert np.isnan(row.max)
            assert np.isnan(row.mean)
            assert row.histogram.tolist() == [0] * RULES.histogram
        else:
            assert row.max == values.max()
            assert row.mean == pytest.approx(values.mean(), abs=1e-12)
            edges = np.arange(RULES.histogram + 1) / RULES.histogram * values.max()
            places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, RULES.histogram - 1)
            assert row.histogram.tolist() == np.bincount(places, minlength=RULES.histogram).tolist()


def test_top_examples_are_one_a_sequence_without_duplicates(data: list[Sequence], index: LatentIndex) -> None:
    for latent in range(N_LATENTS):
        best: dict[int, tuple[int, float]] = {}
        for seq, pos, _, value in kept(data, latent):
            if value > 0 and value > best.get(seq, (0, 0.0))[1]:
                best[seq] = (pos, value)
        expected: list[tuple[int, int, int, float]] = []
        seen: set[tuple[int, tuple[int, ...]]] = set()
        for seq, (pos, value) in sorted(best.items(), key=lambda item: (-item[1][1], item[0])):
            first, stop = window(data, seq, pos)
            shown = (pos - first, tuple(data[seq][0][first:stop].tolist()))
            if shown not in seen:
                seen.add(shown)
                expected.append((len(expected) + 1, seq, pos, value))
        found = index.hits[(index.hits["latent"] == latent) & (index.hits["kind"] == "top")]
        got = list(found[["rank", "seq", "pos", "activation"]].itertuples(index=False, name=None))
        assert got == expected[: RULES.top]


def test_sequences_that_came_before_add_no_examples(data: list[Sequence]) -> None:
    found = [index_latents(events(part), RULES).hits for part in (data[:8], data)]
    first, both = (hits[hits["kind"] == "top"].reset_index(drop=True) for hits in found)
    pd.testing.assert_frame_equal(first, both)


def test_windows_are_clipped_and_left_out_tokens_are_gaps(data: list[Sequence], index: LatentIndex) -> None:
    assert len(index.hits) > 20
    for hit in index.hits.itertuples():
        first, stop = window(data, hit.seq, hit.pos)
        _, keep, acts = data[hit.seq]
        expected = torch.where(keep, acts[:, hit.latent], torch.nan)[first:stop].float().numpy()
        assert hit.first == first
        np.testing.assert_array_equal(hit.activations, expected)
        assert hit.activation == hit.activations[hit.pos - first]


def test_samples_lie_in_their_bins_and_fill_them(data: list[Sequence], index: LatentIndex) -> None:
    samples = index.hits[index.hits["kind"] == "quantile"]
    assert samples.groupby(["latent", "rank"]).size().max() == RULES.per_bin
    for latent in set(range(N_LATENTS)) - {SILENT}:
        values = np.array([value for *_, value in kept(data, latent) if value > 0])
        bins = {bin_of(value, values.max()) for value in values}
        own = samples[samples["latent"] == latent]
        assert set(own["rank"]) == bins
        assert [bin_of(value, values.max()) for value in own["activation"]] == own["rank"].tolist()
        assert not own.duplicated(["seq", "pos"]).any()
    assert SILENT not in set(index.hits["latent"])


def bin_of(value: float, peak: float) -> int:
    return next(number for number in range(1, RULES.bins + 1) if value <= number * peak / RULES.bins + 1e-12)


def test_samples_follow_the_seed(data: list[Sequence]) -> None:
    first, again = (index_latents(events(data), RULES).hits for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


def test_token_means_are_over_all_occurrences(data: list[Sequence], index: LatentIndex) -> None:
    for latent in range(N_LATENTS):
        by_token: dict[int, list[float]] = {}
        for _, _, token, value in kept(data, latent):
            by_token.setdefault(token, []).append(value)
        n_fired = sum(value > 0 for values in by_token.values() for value in values)
        rows = [
            (token, float(np.mean(values)), sum(value > 0 for value in values), len(values))
            for token, values in by_token.items()
            if any(values) and len(values) >= RULES.min_seen
            if sum(value > 0 for value in values) >= RULES.min_share * n_fired
        ]
        rows.sort(key=lambda row: (-row[1], -row[3], row[0]))
        found = index.tokens[index.tokens["latent"] == latent]
        assert found["rank"].tolist() == list(range(1, len(found) + 1))
        got = list(found[["token_id", "mean_activation", "n_fired", "n_seen"]].itertuples(index=False, name=None))
        assert got == [pytest.approx(row, abs=1e-12) for row in rows[: RULES.tokens]]


def test_partners_by_jaccard_and_phi(data: list[Sequence], index: LatentIndex) -> None:
    fired = np.array([[value > 0 for *_, value in kept(data, latent)] for latent in range(N_LATENTS)])
    for latent in range(N_LATENTS):
        for kind in ("coactive", "phi"):
            expected = []
            for other in range(N_LATENTS):
                both = (fired[latent] & fired[other]).sum()
                if other == latent or both == 0:
                    continue
                either = (fired[latent] | fired[other]).sum()
                value = both / either if kind == "coactive" else np.corrcoef(fired[latent], fired[other])[0, 1]
                if value > 0:
                    expected.append((other, value))
            expected.sort(key=lambda item: (-round(item[1], 12), item[0]))
            rows = index.partners[(index.partners["latent"] == latent) & (index.partners["kind"] == kind)]
            assert rows["other"].tolist() == [other for other, _ in expected]
            np.testing.assert_allclose(rows["value"], [value for _, value in expected], atol=1e-12)
            assert rows["rank"].tolist() == list(range(1, len(rows) + 1))


def test_partners_need_enough_tokens_and_firings(data: list[Sequence]) -> None:
    assert index_latents(events(data), IndexRules(coactive_fired=1)).partners.empty
    rows = coactivation(np.array([0, 1, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 0]), 4, 5, best=1, least=2)
    assert rows[rows["kind"] == "coactive"]["other"].tolist() == [1, 0, 0]
    assert coactivation(np.array([0, 1]), np.array([0, 0]), 4, 5, least=2).empty


def test_coactivation_takes_no_more_tokens_than_allowed() -> None:
    collected = LatentEvents(2)
    for _ in range(10):
        collected.add(torch.arange(4), torch.ones(4, dtype=torch.bool), torch.ones(4, 2))
    rows = index_latents(collected, IndexRules(coactive_most=12, coactive_least=1, coactive_fired=1)).partners
    assert rows["value"].tolist() == [1.0, 1.0]  # phi of latents that always fire does not exist
    assert set(rows["kind"]) == {"coactive"}


def test_never_fired_is_dead_only_on_enough_tokens() -> None:
    assert latent_status(0, 99_999) == "too_few_tokens"
    assert latent_status(0, 100_000) == "dead"
    assert latent_status(1, 10) == "ok"


def test_what_does_not_fit_is_refused() -> None:
    collected = LatentEvents(2)
    with pytest.raises(ValueError, match="at least 1 kept token"):
        index_latents(collected)
    ids, keep = torch.arange(3), torch.tensor([False, True, True])
    for wrong in (torch.ones(3, 2), torch.ones(2, 3)):
        with pytest.raises(ValueError, match=r"needs activations of the shape \(2, 2\)"):
            collected.add(ids, keep, wrong)
    with pytest.raises(ValueError, match="finite"):
        collected.add(ids, keep, torch.tensor([[1.0, 0.0], [torch.nan, 0.0]]))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        LatentEvents(0)


def test_watching_may_stop(data: list[Sequence]) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_latents(events(data), RULES, stop)
