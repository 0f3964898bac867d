"""Edits: the one primitive of every intervention, as people write it, checked, with one canonical form.

An edit says where (``site``, ``layer``, ``positions``, ``heads``, ``dims``; for attention patterns ``queries`` and
``keys``), what is done there (``op``) and with what (``source``). Lists left out mean all. Ablation, patching, pruning,
steering and the removal of a sink are edits and nothing else; :mod:`probes.model.editing` carries them out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from probes.checks import shown, whole
from probes.errors import BadRequest
from probes.model.edit_sources import FromRun, Mean, Source, Vector, read_source, source_fault, source_json
from probes.model.sae_sources import Concept, Latent, Rebuilt, SAESource

if TYPE_CHECKING:
    from probes.model.loaded import ModelFacts

__all__ = [
    "GENERATED",
    "Concept",
    "Edit",
    "FromRun",
    "Latent",
    "Mean",
    "Op",
    "Rebuilt",
    "SAESource",
    "Site",
    "Source",
    "Vector",
    "check_edit",
    "describe",
    "parse_edit",
    "parse_edits",
]

Site = Literal["resid", "attn_out", "mlp_out", "head_z", "value", "pattern"]
Op = Literal["set", "add", "scale", "mask"]
SITES: tuple[str, ...] = get_args(Site)
GENERATED: Literal["generated"] = "generated"
_LISTS = ("positions", "heads", "dims", "queries", "keys")
_TAKES: dict[str, tuple[str, ...]] = {
    "resid": ("positions", "dims"),
    "attn_out": ("positions", "dims"),
    "mlp_out": ("positions", "dims"),
    "head_z": ("positions", "heads", "dims"),
    "value": ("positions", "heads", "dims"),
    "pattern": ("heads", "queries", "keys", "renormalise"),
}


@dataclass(frozen=True)
class Edit:
    """One change inside the forward pass. Raises BadRequest for what cannot mean anything on any model.

    ``layer`` is a point 0..L for ``resid`` and a block 0..L-1 elsewhere. Ops: ``set`` and ``add`` take ``"zero"``, a
    number, a :class:`Mean`, :class:`FromRun` or :class:`Vector`; ``resid`` also, at the point of its SAE, a
    :class:`Rebuilt` (``set``), a :class:`Latent` or a :class:`Concept` (``add``); ``scale`` takes a number. ``positions``
    may be ``"generated"``: what a continuation writes, and nothing of the prompt. ``pattern`` takes ``mask`` of
    ``keys`` (``renormalise``: rows are rescaled to sum to 1; a query always keeps its attention to itself), or ``set``
    to ``"uniform"`` over the keys it may see. Heads of ``value`` are key/value heads.
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    site: Site
    layer: int
    op: Op
    source: Source | None = None
    positions: tuple[int, ...] | Literal["generated"] | None = None
    heads: tuple[int, ...] | None = None
    dims: tuple[int, ...] | None = None
    queries: tuple[int, ...] | None = None
    keys: tuple[int, ...] | None = None
    renormalise: bool | None = None

    def __post_init__(self) -> None:
        _require(self.site in SITES, f"site must be one of {', '.join(SITES)}, not {shown(self.site)}")
        _require(whole(self.layer), f"layer must be a whole number from 0, not {shown(self.layer)}")
        ops = ("mask", "set") if self.site == "pattern" else ("set", "add", "scale")
        _require(self.op in ops, f"op must be {' or '.join(ops)} at {self.site}, not {shown(self.op)}")
        for name in (*_LISTS, "renormalise"):
            given = getattr(self, name)
            if given is None:
                continue
            _require(name in _TAKES[self.site], f"{self.site} takes no {name}; it takes {', '.join(_TAKES[self.site])}")
            if name != "renormalise":
                self._order(name, given)
        self._check_source()

    def _order(self, name: str, given: Any) -> None:
        if name == "positions" and given == GENERATED:
            return
        _require(isinstance(given, tuple) and all(map(whole, given)), f"{name} must be whole numbers from 0")
        _require(bool(given), f"{name} is empty; leave it out to mean all")
        index, times = Counter(given).most_common(1)[0]
        _require(times == 1, f"{name} names {index} twice")
        if not (name == "dims" and isinstance(self.source, Vector)):  # a vector goes with its dims in their order
            object.__setattr__(self, name, tuple(sorted(given)))

    def _check_source(self) -> None:
        source = self.source
        if self.site == "pattern":
            if self.op == "mask":
                _require(source is None, "a mask takes no source")
                _require(self.keys is not None, "a mask needs the keys it removes")
                said = self.renormalise is None or isinstance(self.renormalise, bool)
                _require(said, f"renormalise must be true or false, not {shown(self.renormalise)}")
                object.__setattr__(self, "renormalise", self.renormalise is not False)
            else:
                _require(source == "uniform", f'the source of a pattern must be "uniform", not {shown(source)}')
                _require(self.renormalise is None, "renormalise goes with op mask")
            return
        wrong = source_fault(source, self.site, self.op)
        _require(wrong is None, str(wrong))
        if isinstance(source, SAESource):
            _require(self.dims is None, "an SAE reads all dims; leave them out")
        said = not (isinstance(source, FromRun) and self.positions == GENERATED)
        _require(said, "another run has no states at generated positions")

    def where(self, start: int, n_tokens: int) -> list[int]:
        """The positions it acts on in a stretch of tokens that begins at ``start``; a text's own begin at 0."""
        stretch = range(start, start + n_tokens)
        if isinstance(self.positions, str):
            return list(stretch) if start else []
        return list(stretch) if self.positions is None else [p for p in self.positions if p in stretch]

    def as_dict(self) -> dict[str, Any]:
        """The edit as JSON values, only what is said."""
        said = {name: getattr(self, name) for name in ("site", "layer", *_LISTS, "op", "renormalise")}
        said |= {"source": source_json(self.source)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in said.items() if v is not None}

    def __str__(self) -> str:
        """One line for people, such as ``resid 12, position 0, dim 507: set to zero``."""
        named = {"positions": "position", "heads": "head", "dims": "dim", "queries": "query", "keys": "key"}
        where = [f"{self.site} {self.layer}"]
        for name, singular in named.items():
            given = getattr(self, name)
            if given == GENERATED:
                where.append("generated positions")
            elif given is not None:
                where.append(f"{singular} {given[0]}" if len(given) == 1 else f"{len(given):,} {name}")
        verbs = {"set": f"set to {self.source}", "add": f"plus {self.source}", "scale": f"times {self.source}"}
        masked = "masked, rescaled" if self.renormalise else "masked"
        return f"{', '.join(where)}: {verbs.get(self.op, masked)}"


def describe(edits: Sequence[Edit]) -> str:
    """Edits in one line: the first of them, and how many more."""
    if not edits:
        return "none"
    return str(edits[0]) if len(edits) == 1 else f"{edits[0]}; {len(edits) - 1} more"


def parse_edit(given: Any) -> Edit:
    """An edit from JSON values. Raises BadRequest in one sentence for an unknown name, site, op, source or number."""
    _require(isinstance(given, Mapping), f"an edit is an object such as {_EXAMPLE}, not {shown(given)}")
    names = [field.name for field in fields(Edit)]
    for name in given:
        _require(name in names, f"an edit has no {shown(name)}; it has {', '.join(names)}")
    for name in ("site", "layer", "op"):
        _require(name in given, f"{name} is missing, as in {_EXAMPLE}")
    values = dict(given)
    for name in _LISTS:
        if values.get(name) is not None and (name, values[name]) != ("positions", GENERATED):
            _require(isinstance(values[name], list | tuple), f"{name} must be a list, not {shown(values[name])}")
            values[name] = tuple(values[name])
    try:
        values["source"] = read_source(given.get("source"))
    except ValueError as wrong:
        raise BadRequest(f"Edit: {wrong}.") from None
    return Edit(**values)


_EXAMPLE = '{"site": "resid", "layer": 12, "positions": [0], "dims": [507], "op": "set", "source": "zero"}'


def parse_edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """Edits from JSON texts, each one object or a list of at least one, in order. Raises BadRequest."""
    edits: list[Edit] = []
    for text in texts:
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):  # also a whole number of more digits than Python reads
            raise BadRequest(f"An edit is JSON such as {_EXAMPLE}, not {shown(text)}.") from None
        _require(
            given != [], f"the list of edits is empty; leave it out for a clean run, or name one such as {_EXAMPLE}"
        )
        edits += [parse_edit(one) for one in (given if isinstance(given, list) else [given])]
    return tuple(edits)


def check_edit(edit: Edit, facts: ModelFacts, n_tokens: int) -> None:
    """Raise BadRequest, naming the allowed range, for a place this model and prompt do not have."""
    last = facts.n_layers if edit.site == "resid" else facts.n_layers - 1
    what = "point" if edit.site == "resid" else "block"
    _require(edit.layer <= last, f"layer of {edit.site} is a {what} from 0 to {last} here, not {edit.layer}")
    heads = facts.n_kv_heads if edit.site == "value" else facts.n_heads
    width = site_width(edit.site, facts)
    ends = {"positions": n_tokens, "queries": n_tokens, "keys": n_tokens, "heads": heads, "dims": width}
    for name, end in ends.items():
        named = getattr(edit, name)
        outside = [index for index in named or () if index >= end] if named != GENERATED else []
        if outside:
            kind = "key/value " if name == "heads" and edit.site == "value" else ""
            raise BadRequest(f"Edit: {kind}{name} of {edit.site} lie in 0..{end - 1} here, not {outside[0]}.")
    if isinstance(edit.source, Vector):
        wanted = width if edit.dims is None else len(edit.dims)
        given = len(edit.source.values)
        _require(given == wanted, f"the vector must have {wanted} numbers, one a dimension, not {given}")


def site_width(site: str, facts: ModelFacts) -> int:
    """Dimensions of one position (of one head, where the site has heads)."""
    return facts.d_head if site in ("head_z", "value") else facts.d_model


def _require(fits: bool, says: str) -> None:
    if not fits:
        raise BadRequest(f"Edit: {says}.")
