"""The selection in and out of an address: whatever it says, a valid selection and one sentence a problem."""

import random
import string

import pytest
from streamlit.testing.v1 import AppTest

from app.selection import Bounds, Selection, parse
from app.state import accompany

LIMITS = Bounds(point=30, position=257, head=8, dimension=575, latent=4607)
START = LIMITS.start()


def test_the_start_is_the_middle_token_above_the_middle_of_the_model() -> None:
    assert Selection(point=18, position=128) == START


def test_a_good_address_is_taken_whole() -> None:
    parts = {"point": "12", "position": "0", "head": "3", "dimension": "507", "latent": "4607"}
    assert parse(parts, LIMITS, START) == (Selection(12, 0, 3, 507, 4607), ())


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "31",
        "1e3",
        "NaN",
        "inf",
        "null",
        "",
        " 5",
        "5 ",
        "5.0",
        "0x5",
        "٥",
        "9" * 13,
        "1" * 5000,
        "[1]",
        "<b>",
        "\x00",
    ],
)
def test_a_bad_point_falls_back_and_says_so(text: str) -> None:
    chosen, problems = parse({"point": text}, LIMITS, START)
    assert chosen == START
    assert len(problems) == 1
    assert "must be a whole number from 0 to 30; 18 is shown" in problems[0]
    assert len(problems[0]) < 200


def test_what_a_run_does_not_have_is_named() -> None:
    chosen, problems = parse({"latent": "3"}, Bounds(30, 9), Selection())
    assert chosen == Selection()
    assert problems == ("The address says latent='3', but this run has none; nothing is selected.",)


def test_a_thousand_fuzzed_addresses_never_raise_and_always_fit() -> None:
    draw = random.Random(0)
    signs = string.printable + "٣५\u202e\ud800😀"
    names = ["point", "position", "head", "dimension", "latent", "pos", "zzz"]
    for _ in range(1000):
        parts = {
            draw.choice(names): draw.choice(
                [str(draw.randint(-10, 5000)), "".join(draw.choices(signs, k=draw.randint(0, 20)))]
            )
            for _ in range(draw.randint(0, 6))
        }
        chosen, _ = parse(parts, LIMITS, START)
        for name in ("point", "position", "head", "dimension", "latent"):
            value = getattr(chosen, name)
            assert value is None or 0 <= value <= getattr(LIMITS, name)
        assert chosen.point is not None
        assert chosen.position is not None


def script() -> None:
    import streamlit as st

    from app.selection import Bounds
    from app.state import arrive, current, select, settle

    link = arrive()
    problems = settle("m", "r", "all", Bounds(30, 257, 8, 575), link)
    if st.button("go"):
        select(point=99, position=-5, head=2)
    if st.button("release"):
        select(position=None, head=None)
    chosen = current()
    st.write(f"{chosen.point} {chosen.position} {chosen.head} {len(problems)}")


def test_the_address_is_read_then_written_from_the_state() -> None:
    app = AppTest.from_function(script)
    app.query_params["point"] = "12"
    app.query_params["pos"] = "999"
    app.run()
    assert app.markdown[0].value == "12 128 None 1"
    assert dict(app.query_params) == {"model": "m", "run": "r", "mask": "all", "point": "12", "pos": "128"}
    app.run()
    assert app.markdown[0].value == "12 128 None 0", "what this session wrote is no problem of the address"


def test_select_clamps_and_release_returns_to_the_start() -> None:
    app = AppTest.from_function(script).run()
    app.button[0].click().run()
    assert app.markdown[0].value == "30 0 2 0"
    assert app.query_params["head"] == "2"
    app.button[1].click().run()
    assert app.markdown[0].value == "30 128 None 0"
    assert "head" not in app.query_params


def test_an_address_just_left_does_not_come_back_with_a_run_asked_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    app = AppTest.from_function(script).run()
    before = dict(app.query_params)
    app.button[0].click().run()
    app.query_params.clear()
    for key, value in before.items():
        app.query_params[key] = value
    app.run()
    assert app.markdown[0].value == "30 0 2 0"
    assert app.query_params["head"] == "2"
    monkeypatch.setattr("app.state._STALE", 0.0)
    app.query_params.clear()
    for key, value in before.items():
        app.query_params[key] = value
    app.run()
    assert app.markdown[0].value == "18 128 2 0", "later it is a link like any other"


def beside() -> None:
    import streamlit as st

    from app.selection import Bounds
    from app.state import accompany, arrive, select, settle

    link = arrive()
    st.write(str(dict(link.beside)) if link else "nothing asked")
    if st.session_state.get("page", "compare") == "compare":
        accompany(settled=False, b="run1")
    settle("m", "r", "all", Bounds(30, 257), link)
    if st.button("view"):
        accompany(b="run1", view="sinks")
        select(point=3)
    if st.button("leave"):
        st.session_state["page"] = "sinks"
        st.rerun()


def test_what_a_page_has_beside_the_selection_stays_with_it_and_goes_with_it() -> None:
    app = AppTest.from_function(beside)
    app.query_params["b"] = "run1"
    app.run()
    assert app.markdown[0].value == "{'b': 'run1'}"
    assert app.query_params["b"] == "run1"
    app.button[0].click().run()
    assert (app.query_params["view"], app.query_params["point"]) == ("sinks", "3")
    app.button[1].click().run()
    assert app.markdown[0].value == "nothing asked"
    assert "b" not in app.query_params
    assert "view" not in app.query_params
    assert app.query_params["point"] == "3"


def test_nothing_else_may_stand_beside_the_selection() -> None:
    with pytest.raises(TypeError, match="an address has no 'zzz' beside the selection; it has b, view"):
        accompany(zzz="1")
