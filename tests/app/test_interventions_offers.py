"""Which tests the page Interventions offers, by what is selected and what the run holds."""

from dataclasses import replace

import pandas as pd
from streamlit.testing.v1 import AppTest

from tests.app.conftest import OpenPage
from tests.app.fakes import FakeResult, fake_result, told


def offered(app: AppTest) -> set[str]:
    return {button.key.removeprefix("test-").rpartition("-")[0] for button in app.button if _tests(button.key)}


def _tests(key: str | None) -> bool:
    return str(key).startswith("test-") and str(key).endswith(("-zero", "-mean"))


def massive() -> FakeResult:
    """An imagined run in which two entries are born, the second the larger one."""
    made = fake_result()
    births = pd.DataFrame(
        {
            "birth": [2, 3], "pos": [4, 0], "dim": [9, 7], "death": [5, 6], "attn_delta": [90.0, -10.0],
            "mlp_delta": [10.0, 2480.0],
        }
    )  # fmt: skip
    return replace(made, tables={**made.tables, "massive_events": births})


def test_without_dimension_head_or_massive_entry_a_key_and_a_block_are_offered(open_page: OpenPage) -> None:
    app = open_page("interventions", fake_result(), point="3", pos="2")
    assert not app.exception
    assert offered(app) == {"sink", "key", "block"}
    assert "attention to position 2, from block" in told(app)
    assert ":small[:gray[block 2]]" in told(app)


def test_the_largest_massive_entry_is_offered_at_its_birth_and_a_selected_one_before_it(open_page: OpenPage) -> None:
    app = open_page("interventions", massive(), point="5", pos="2")
    assert offered(app) == {"entry", "sink", "key", "block"}
    assert "the largest entry of this text (point 3, position 0, dimension 7)" in told(app)
    app = open_page("interventions", massive(), point="5", pos="2", dim="11")
    assert offered(app) == {"entry", "sink", "key", "block", "dimension"}
    assert "the selected entry (point 5, position 2, dimension 11)" in told(app)
    assert "dimension 11 at point 5" in told(app)


def test_a_selected_head_is_offered(open_page: OpenPage) -> None:
    app = open_page("interventions", fake_result(), point="3", head="1")
    assert offered(app) == {"sink", "key", "key-head", "head", "block"}
    assert ":small[:gray[head 2.1]]" in told(app)
    assert ":small[:gray[in head 2.1 alone]]" in told(app)


def test_no_two_tests_have_the_same_name(open_page: OpenPage) -> None:
    app = open_page("interventions", massive(), point="5", pos="2", dim="11", head="1")
    buttons = [button for button in app.button if _tests(button.key)]
    assert len(buttons) == 12
    assert len({button.label for button in buttons}) == len(buttons)


def test_a_run_whose_tokens_nobody_read_is_offered_nothing(open_page: OpenPage) -> None:
    made = fake_result()
    app = open_page("interventions", replace(made, tables={**made.tables, "token_metrics": pd.DataFrame()}))
    assert not app.exception
    assert offered(app) == set()
