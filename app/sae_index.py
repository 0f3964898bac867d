"""What the store knows of an installed SAE: the index of its latents, their labels and their states. No streamlit."""

import re
import unicodedata
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.latent_index import latent_status
from app.panels.latents import latent_in_sight, read_with
from app.services import Services
from app.text import markdown
from app.view import Gap, View
from probes.model.catalog import base_name
from probes.saes.config import SAEFormatError, read_config
from probes.saes.folder import SAEInfo, content_digest, installed_saes

__all__ = [
    "DENSE", "RARE", "STATES", "Indexed", "fires_on", "indexed", "known_index", "labels_of", "latent_here",
    "neuronpedia", "sae_info", "states",
]  # fmt: skip

_NEURONPEDIA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
DENSE, RARE = 0.1, 1e-5
STATES: Mapping[str, str] = {
    "all": "all",
    "fires": "fires at all",
    "never": "never fired",
    "dense": "dense (above 10 %)",
    "rare": "ultra-rare (below 1e-5)",
}
"""States a latent may be asked for by -> what people read."""


@dataclass(frozen=True)
class Indexed:
    """An installed SAE with its index in the store: ``row`` is that of ``sae_indexes``."""

    services: Services
    sae: SAEInfo
    content: str
    row: Mapping[str, Any]

    @property
    def n_tokens(self) -> int:
        return int(self.row["n_tokens"])

    @property
    def key(self) -> tuple[str, str]:
        """What figures of this index are kept by."""
        return str(self.row["index_id"]), str(self.row["created"])

    def table(self, name: str, latent: int | None = None) -> pd.DataFrame:
        """A table of the index, of one latent if asked. Do not change it."""

        def read() -> pd.DataFrame:
            return self.services.store.sae_table(self.key[0], name, latent)

        frame: pd.DataFrame = self.memo(("sae table", name, latent), read)
        return frame

    def memo(self, what: Any, build: Any) -> Any:
        """Something of this index, built once for all sessions; never change it."""
        return self.services.memo.get((self.key, what), build)

    @property
    def latents(self) -> pd.DataFrame:
        """One row a latent, by its number. Do not change it."""
        frame: pd.DataFrame = self.memo(
            "latents by number", lambda: self.table("sae_latents").set_index("latent", drop=False)
        )
        return frame

    def labels(self) -> Mapping[int, str]:
        """The label of each latent that has one: a person's where there is one, else the default of its token rule."""

        def read() -> dict[int, str]:
            return {int(latent): str(text) for latent, text in self.latents["label"].dropna().items() if text}

        default: dict[int, str] = self.memo("default labels", read)
        own = self.services.store.sae_label(self.content)
        return ChainMap(dict(zip(own["latent"].astype(int), own["label"].astype(str), strict=True)), default)

    def latent(self, number: int) -> pd.Series:
        """The row of one latent. Raises Gap if the SAE has no such latent."""
        if number not in self.latents.index:
            raise Gap(f"It has no latent {number}; it has 0 to {self.sae.d_sae - 1:,}.")
        row: pd.Series = self.latents.loc[number]
        return row

    def fired(self, number: int) -> pd.Series:
        """As :meth:`latent`. Raises Gap for one that never fired, too."""
        row = self.latent(number)
        if int(row["n_fired"]) == 0:
            raise Gap(f"Latent {number} did not fire on any of the {self.n_tokens:,} tokens of the index.")
        return row

    def decode(self, token_ids: Any) -> tuple[str, ...]:
        """The raw text of each token id."""
        return self.services.decode(str(self.row["model"]), [int(one) for one in token_ids])

    def vocabulary(self) -> Mapping[int, str]:
        """The raw text of every token that the index names as one a latent fires on."""

        def read() -> dict[int, str]:
            ids = np.unique(self.table("sae_latent_tokens")["token_id"].to_numpy(dtype=int))
            ids = np.union1d(ids, self._peaks()["token_id"].to_numpy(dtype=int))
            return dict(zip(ids.tolist(), self.decode(ids), strict=True))

        found: Mapping[int, str] = self.memo("vocabulary", read)
        return found

    def sequence(self, seq: int) -> pd.Series:
        """Where a sequence of the index comes from, and its token ids."""
        frame = self.memo("sequences", lambda: self.table("sae_sequences").set_index("seq"))
        row: pd.Series = frame.loc[seq]
        return row

    def _peaks(self) -> pd.DataFrame:
        """Latent and token of the peak of every kept example."""

        def read() -> pd.DataFrame:
            hits = self.services.store.sae_table(self.key[0], "sae_hits")[["latent", "seq", "pos"]]
            ids = [self.sequence(seq)["token_ids"][pos] for seq, pos in zip(hits["seq"], hits["pos"], strict=True)]
            return pd.DataFrame({"latent": hits["latent"], "token_id": np.array(ids, dtype=np.int64)})

        frame: pd.DataFrame = self.memo("peaks", read)
        return frame


def fires_on(index: Indexed, text: str) -> NDArray[np.int64]:
    """The latents that fire on a token containing ``text``: one of their max tokens, or the peak of one of their examples.

    Case does not count; a text without a letter or digit is matched as it is, spaces included.
    """
    wanted = _folded(text)
    named = index.vocabulary()
    tokens = np.array([token for token, shown in named.items() if wanted in _folded(shown)], dtype=np.int64)
    rules, peaks = index.table("sae_latent_tokens"), index._peaks()
    return np.unique(np.concatenate([frame.loc[frame["token_id"].isin(tokens), "latent"] for frame in (rules, peaks)]))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text.replace("·", " ").replace("⏎", "\n")).casefold()


def states(latents: pd.DataFrame, n_tokens: int) -> pd.Series:
    """The state of each latent, as people read it: dead or never fired, dense, ultra-rare, or nothing.

    Dead needs 100,000 tokens without a firing (``analysis.latent_index.latent_status``); fewer cannot tell.
    """
    silent = "dead" if latent_status(0, n_tokens) == "dead" else "never fired"
    density = latents["density"]
    names = np.select(
        [latents["n_fired"] == 0, density > DENSE, density < RARE], [silent, "dense", "ultra-rare"], default=""
    )
    return pd.Series(names, index=latents.index)


def sae_info(view: View, sae: str) -> SAEInfo:
    """The installed SAE of a name; "" is the one the run was read with. Raises Gap where there is none."""
    own = view.table("latents")
    name = sae or ("" if own.empty else str(own["sae"].iloc[0]))
    if not name:
        raise Gap("This run was not read with an SAE, and none was chosen.")
    info = next((one.info for one in installed_saes() if one.name == name), None)
    if info is None:
        raise Gap(f"The SAE {markdown(name)} is not installed.")
    return info


def known_index(view: View, info: SAEInfo) -> Indexed | None:
    """The index of an installed SAE: one made with the run's own weights, else one made with a variant of its model."""
    content, store = content_digest(info.folder), view.services.store
    row = store.sae_index(content, view.facts.fingerprint)
    if row is None:
        row = store.sae_index(content)
        if row is not None and base_name(str(row["model"])) != base_name(view.info.model):
            return None
    return None if row is None else Indexed(view.services, info, content, row.to_dict())


def indexed(view: View, sae: str) -> Indexed:
    """The index of an SAE by name ("": the run's own). Raises Gap, with how to make one, if it is not stored."""
    info = sae_info(view, sae)
    found = known_index(view, info)
    if found is None:
        raise Gap(
            f"The store has no index of the latents of {markdown(info.name)}, which is what says where they fire: make one "
            "on the page *One latent*, or with `python -m app sae index NAME`."
        )
    return found


def latent_here(view: View, sae: str) -> int:
    """The latent in sight: the selected one, or the strongest of the selected token, or 0 where no run says."""
    try:
        return latent_in_sight(read_with(view, sae))
    except Gap:
        return view.selection.latent or 0


def labels_of(view: View, sae: str) -> Mapping[int, str]:
    """The labels of an SAE's latents; none where it has no index."""
    try:
        return indexed(view, sae).labels()
    except Gap:
        return {}


def neuronpedia(info: SAEInfo, latent: int) -> str | None:
    """The address of a latent at Neuronpedia, where the SAE's metadata names a model and a source there."""
    try:
        known = read_config(info.folder).get("metadata", {}).get("neuronpedia_id")
    except (SAEFormatError, OSError):
        return None
    if not isinstance(known, str) or _NEURONPEDIA.fullmatch(known) is None:
        return None
    return f"https://www.neuronpedia.org/{known}/{latent}"
