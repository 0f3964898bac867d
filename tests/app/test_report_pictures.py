"""Figures as files: every kind of figure in every format, whole, in its theme, with text that stays text."""

import re
import struct
import threading
import zlib
from collections.abc import Iterator
from html import unescape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import psutil
import pytest

from app.figures.theme import base, token_axis
from app.report import pictures
from app.report.pictures import FORMATS, SEEN, picture, specification
from app.text import plot_label
from tests.app.fakes import HOSTILE

STARTS = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<svg ", "pdf": b"%PDF-"}


@pytest.fixture(scope="module", autouse=True)
def browser(chromium: str) -> Iterator[None]:
    yield
    pictures.close()


def heatmap() -> go.Figure:
    z = np.arange(len(HOSTILE) * 6, dtype="float32").reshape(6, -1)
    fig = base(go.Figure(go.Heatmap(z=z, colorscale="Viridis")), x="token", y="layer", legend=False)
    return token_axis(fig, HOSTILE)


def lines() -> go.Figure:
    fig = go.Figure().add_scatter(x=np.arange(5), y=np.arange(5) ** 2, name=plot_label(HOSTILE[0], 60))
    return base(fig, x="point", y="value")


def bars() -> go.Figure:
    return base(go.Figure().add_bar(x=np.arange(5), y=np.arange(5)), height=240, x="point", legend=False)


def surface() -> go.Figure:
    fig = base(go.Figure(go.Surface(z=np.add.outer(np.arange(8), np.arange(8)))), height=400, legend=False)
    return fig.update_layout(scene={"xaxis": {"visible": False}, "yaxis": {"title": {"text": "dimension"}}})


@pytest.mark.parametrize("make", [heatmap, lines, bars, surface])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_kind_of_figure_is_a_file_of_every_format(make: Any, suffix: str) -> None:
    fig = make()
    before = fig.to_json()
    content = picture(fig, suffix)
    assert content.startswith(STARTS[suffix])
    assert len(content) > 4000
    assert fig.to_json() == before


@pytest.mark.parametrize(("theme", "ground"), [("light", (255, 255, 255)), ("dark", (0x12, 0x16, 0x1B))])
def test_a_png_is_twice_as_large_and_has_the_ground_of_its_theme(theme: str, ground: tuple[int, int, int]) -> None:
    content = picture(bars(), "png", theme=theme)
    assert struct.unpack(">II", content[16:24]) == (1800, 480)
    assert corner(content) == ground


def test_a_size_that_is_asked_for_is_kept() -> None:
    content = picture(lines(), "svg", width=500, height=300)
    assert b'width="500" height="300"' in content


def test_a_pdf_holds_the_whole_picture() -> None:
    [box] = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", picture(bars(), "pdf"))
    assert [round(float(side)) for side in box] == [675, 180]  # points, for 900 x 240 pixels


def test_text_stays_text() -> None:
    shown = unescape("".join(re.findall(r">([^<>]*)<", picture(heatmap(), "svg").decode())))
    for part in ("<script>ale…", "$x^2$", ":red[hi]", "**b**", "\\u202ertl", "=1+1", "\\xe2"):
        assert part in shown
    named = picture(lines(), "svg").decode()
    assert "<script>alert(1)</script>" in unescape(named)
    assert "<script" not in named


def test_a_specification_brings_its_colours() -> None:
    for theme, (ground, text) in SEEN.items():
        layout = specification(bars(), theme)["layout"]
        assert (layout["paper_bgcolor"], layout["font"]["color"], layout["font"]["size"]) == (ground, text, 12)


def test_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="suffix must be one of png, svg, pdf"):
        picture(bars(), "exe")


def test_threads_take_turns_and_each_gets_its_own() -> None:
    found: dict[int, bytes] = {}

    def draw(width: int) -> None:
        found[width] = picture(bars(), "svg", width=width)

    threads = [threading.Thread(target=draw, args=(width,)) for width in range(400, 1000, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(f'width="{width}"'.encode() in content for width, content in found.items())
    assert len(found) == 6


def test_a_browser_that_died_is_started_anew() -> None:
    pictures.close()
    before = psutil.Process().children(recursive=True)
    picture(bars(), "svg")
    for process in psutil.Process().children(recursive=True):
        if "chrom" in process.name() and process not in before:
            process.kill()
    assert picture(bars(), "svg").startswith(STARTS["svg"])


def corner(png: bytes) -> tuple[int, ...]:
    """The first pixel of a PNG of eight bits a channel; the first row's filter changes nothing at its first pixel."""
    data, at = b"", 8
    channels = {2: 3, 6: 4}[png[25]]
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    return tuple(zlib.decompress(data)[1 : 1 + channels][:3])
