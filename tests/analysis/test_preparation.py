import pytest
import torch

from analysis.preparation import HEADLINE, PREPARATIONS, RAW_MASKS, prepare

H = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
ALL = torch.ones(12, dtype=torch.bool)


def test_the_four_preparations_are_the_normed_headline_and_one_raw_for_each_mask() -> None:
    assert (HEADLINE, *RAW_MASKS) == PREPARATIONS
    assert dict(RAW_MASKS) == {"raw_all": "all", "raw_no_bos": "no_bos", "raw_no_sink": "no_sink"}


def test_raw_keeps_the_rows_of_the_mask_and_centres_them_in_float64() -> None:
    keep = ALL.clone()
    keep[0] = False
    x = prepare(H, keep, normed=False)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x, H[1:].double() - H[1:].double().mean(0))


def test_normed_rows_have_an_rms_of_one_before_centring_whatever_their_scale() -> None:
    scaled = H * torch.logspace(-3, 3, 12)[:, None]
    x = prepare(scaled, ALL, normed=True, centre=False)
    torch.testing.assert_close(x.square().mean(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(prepare(scaled, ALL, normed=True), prepare(H, ALL, normed=True), rtol=1e-6, atol=1e-6)


def test_a_zero_row_stays_zero_when_normed() -> None:
    rows = H.clone()
    rows[3] = 0
    assert not prepare(rows, ALL, normed=True, centre=False)[3].any()


@pytest.mark.parametrize("normed", [True, False])
def test_repeated_tokens_are_exactly_zero_after_centring(normed: bool) -> None:
    repeated = torch.full((7, 3), 0.1) * torch.tensor([1.0, 3.0, 7.0])
    assert not prepare(repeated, torch.ones(7, dtype=torch.bool), normed=normed).any()


def test_no_kept_token_gives_no_rows() -> None:
    assert prepare(H, ~ALL, normed=True).shape == (0, 5)
