"""Every view that two runs are compared on. A new one is one line in `VIEWS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app import comparable_figures as draw
from app.comparable_figures import Builder
from app.comparison import Pair, Side
from app.figures.lens_lines import Variant
from app.figures.spectra_layers import METRICS
from app.panels.panel import Part

__all__ = ["PAGES", "VIEWS", "Comparable", "view"]

PAGES = {
    "overview": "Overview",
    "tokens": "Tokens",
    "spectra": "Spectra",
    "sinks": "Sinks",
    "massive": "Massive activations",
    "lens": "Logit lens",
    "latents": "SAE latents",
}


@dataclass(frozen=True)
class Comparable:
    """A view: its figure of one side, what its axes are parts of, and when its two sides cannot be subtracted."""

    key: str
    page: str
    title: str
    question: str
    docs: tuple[str, str]
    build: Builder
    x: Part | None = "point"
    y: Part | None = None
    depends: tuple[str, ...] = ()  # parts of the selection that the figure itself changes with
    apart: Callable[[Pair], str | None] = lambda pair: None
    own_layers: bool = False  # where apart, B stands on its own layers
    wide: bool = False  # A above B instead of beside it
    rows: Callable[[Side, Pair], Sequence[int]] | None = None  # what the rows along y stand for, if not their numbers


_READING: dict[Variant, str] = {"mean": "mean-corrected", "raw": "raw"}
_MAPS = {"KL to the end": "kl", "entropy": "entropy", "rank of the target": "rank", "p of the top token": "p"}
_COSINES = {"raw": "raw", "centred": "mean removed", "nomassive": "three largest dimensions zeroed"}
_HEADS = {
    "sink_score": "Attention to position 0 by head",
    "sink_ratio": "Attention to position 0 over uniform",
    "value_norm_ratio": "Value norm of position 0 by head",
    "attn_entropy": "Entropy of attention by head",
}
VIEWS: tuple[Comparable, ...] = (
    Comparable(
        "overview",
        "overview",
        "All signals by layer",
        "Where along the model does each signal change?",
        ("overview", "Layers on one axis"),
        draw.all_signals,
        wide=True,
    ),
    Comparable(
        "tokens-nll",
        "tokens",
        "Surprise by token",
        "Which tokens became more or less likely?",
        ("compare", "Tokens"),
        draw.by_token("nll", "nll (nats)"),
        x="position",
    ),
    Comparable(
        "tokens-norm",
        "tokens",
        "Norm of the state by token",
        "Which states grew or shrank at the selected point?",
        ("compare", "Tokens"),
        draw.by_token("resid_norm", "norm", log=True),
        x="position",
        depends=("point",),
    ),
    *(
        Comparable(
            f"spectra-{metric.replace('_', '-')}",
            "spectra",
            title[0].upper() + title[1:],
            "Where along the model does it change?",
            ("spectra", "Alpha by layer" if metric.startswith("alpha") else "Descriptors"),
            draw.descriptor(metric),
        )
        for metric, title in METRICS.items()
    ),
    Comparable(
        "spectra-directions",
        "spectra",
        "Directions above noise",
        "How many directions vary together more than chance?",
        ("spectra", "Directions above noise"),
        draw.directions,
    ),
    Comparable(
        "spectra-rank",
        "spectra",
        "Rank plot of the selected point",
        "Which ranks hold more variance? Rows divided by their RMS, all ranks.",
        ("spectra", "Rank plot"),
        draw.rank_of_point,
        x=None,
        depends=("point",),
    ),
    *(
        Comparable(
            f"sinks-{metric.replace('_', '-')}",
            "sinks",
            title,
            "Which heads changed?",
            ("sinks", "Sink score by head"),
            draw.heads(metric),
            x="head",
            y="block",
            apart=draw.other_heads,
            own_layers=True,
        )
        for metric, title in _HEADS.items()
    ),
    Comparable(
        "sinks-share",
        "sinks",
        "Share of sink heads",
        "From which layer on are there sinks?",
        ("sinks", "Share of sink heads"),
        draw.share,
    ),
    Comparable(
        "sinks-tokens",
        "sinks",
        "Attention received by token",
        "Which keys of the selected block draw more or less?",
        ("sinks", "Attention received by token"),
        draw.received,
        x="position",
        depends=("point", "head"),
        apart=draw.other_head,
    ),
    *(
        Comparable(
            f"sinks-cosine-{kind}",
            "sinks",
            f"Cosine to position 0, {title}",
            "Which tokens became more like position 0?",
            ("sinks", "Cosine to position 0"),
            draw.cosine(kind),
            x="position",
            y="point",
        )
        for kind, title in _COSINES.items()
    ),
    Comparable(
        "massive-top",
        "massive",
        "Largest entries by point",
        "How large is the largest entry?",
        ("massive", "Largest entries by point"),
        draw.largest,
    ),
    Comparable(
        "massive-lives",
        "massive",
        "Birth and death",
        "From which point to which is an entry strictly massive?",
        ("massive", "Birth, death and writers"),
        draw.lives,
        apart=draw.spans,
    ),
    Comparable(
        "massive-entries",
        "massive",
        "All entries of the selected point",
        "Where do the large entries sit?",
        ("massive", "One point, entry by entry"),
        draw.entries,
        x="position",
        y="dimension",
        depends=("point", "position"),  # fewer tokens are in sight than in other views
        rows=draw.entry_dimensions,
        apart=draw.other_width,
    ),
    *(
        Comparable(
            f"lens-{short}-{variant}",
            "lens",
            f"Map of {colour}, {name}",
            "What does each state read as, and how well?",
            ("lens", "The map"),
            draw.reading(variant, colour),
            x="position",
            y="point",
        )
        for variant, name in _READING.items()
        for colour, short in _MAPS.items()
    ),
    Comparable(
        "lens-curve",
        "lens",
        "KL to the end, all positions",
        "How far is each point from the answer?",
        ("lens", "All positions"),
        draw.curve(0),
    ),
    Comparable(
        "lens-ranks",
        "lens",
        "Rank of the next token, median",
        "When does it pass the control?",
        ("lens", "Rank of the target"),
        draw.curve(1),
    ),
    Comparable(
        "lens-position",
        "lens",
        "One position on its way",
        "How does the reading of the selected position get to the answer?",
        ("lens", "One position"),
        draw.one_position,
        depends=("position",),
    ),
    Comparable(
        "lens-position-rank",
        "lens",
        "Rank at the selected position",
        "When is the next token known?",
        ("lens", "Rank of the target"),
        draw.one_rank,
        depends=("position",),
    ),
    Comparable(
        "latents-map",
        "latents",
        "Latents along the text",
        "Which latents fire more or less, and where?",
        ("latents", "Latents along the text"),
        draw.latents_along,
        x="position",
        y="latent",
        apart=draw.other_saes,
        rows=draw.latents_shown,
    ),
    Comparable(
        "latents-fit",
        "latents",
        "Fit by token",
        "Which tokens does the SAE rebuild better or worse?",
        ("latents", "Fit by token"),
        draw.fit,
        x="position",
        apart=draw.other_saes,
    ),
    Comparable(
        "latents-latent",
        "latents",
        "The selected latent",
        "Where in the text does it fire?",
        ("latents", "One latent"),
        draw.one_latent,
        x="position",
        depends=("latent",),
        apart=draw.other_saes,
    ),
)


def view(key: str) -> Comparable | None:
    """The view of that key, or None."""
    return next((found for found in VIEWS if found.key == key), None)
