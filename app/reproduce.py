"""How an alpha is made again: its spectrum out of the tables of a run, and the code that a reader copies."""

import shlex
from dataclasses import dataclass

import pandas as pd

from analysis.alpha import Estimator, RankFit, RankWindow, fit_spectrum
from analysis.preparation import HEADLINE, Preparation
from analysis.spectrum import Spectrum, undefined_spectrum

__all__ = ["Convention", "command", "python", "spectrum_at"]

_METRIC_OF_WINDOW = {"all": "alpha_sigma", "11_100": "alpha_sigma_11_100", "lowrank": "alpha_sigma_lowrank"}


@dataclass(frozen=True, slots=True)
class Convention:
    """What turns hidden states into one alpha: the matrix, the ranks and the estimator."""

    prep: Preparation
    window: RankWindow
    estimator: Estimator

    @property
    def suffix(self) -> str:
        """What metric names of this preparation end with."""
        return "" if self.prep == HEADLINE else f"@{self.prep}"

    @property
    def metric(self) -> str | None:
        """The metric of ``layer_metrics`` that is this convention, if one is."""
        name = _METRIC_OF_WINDOW.get(self.window) if self.estimator == "slope" else None
        return None if name is None else name + self.suffix

    def fit(self, spectrum: Spectrum) -> RankFit:
        """Alpha of a spectrum under this convention."""
        return fit_spectrum(spectrum, self.window, self.estimator)


def spectrum_at(
    layer_metrics: pd.DataFrame, spectra: pd.DataFrame, point: int, prep: Preparation, d_model: int, *, centred: bool
) -> Spectrum | None:
    """The spectrum a run holds of a point and preparation, or its reason; None if the run did not ask for it."""
    name = "alpha_sigma" if prep == HEADLINE else f"alpha_sigma@{prep}"
    said = layer_metrics[(layer_metrics["layer"] == point) & (layer_metrics["metric"] == name)]
    if said.empty:
        return None
    n = int(said["n_used"].iloc[0])
    rows = spectra[(spectra["layer"] == point) & (spectra["prep"] == prep)].sort_values("k")
    if rows.empty:
        return undefined_spectrum(said["status"].iloc[0], n, d_model, centred=centred)
    return Spectrum(rows["singular_value"].to_numpy(dtype="float64"), n, d_model, centred)


def python(convention: Convention, point: int, spectrum: Spectrum, mask: str) -> str:
    """Python that makes an alpha again from a text and a model in memory."""
    probe = '"spectral"' if spectrum.centred else '("spectral", {"centre": False})'
    uncentred = "" if spectrum.centred else ", centred=False"
    return f"""from analysis.alpha import fit_spectrum
from analysis.spectrum import Spectrum
from probes import explore

result = explore(hf_model, tokenizer, text, probes=[{probe}], mask={mask!r})
rows = result.table("spectra")
rows = rows[(rows["layer"] == {point}) & (rows["prep"] == {convention.prep!r})].sort_values("k")
spectrum = Spectrum(rows["singular_value"].to_numpy(), n={spectrum.n}, d={spectrum.d}{uncentred})
fit = fit_spectrum(spectrum, {convention.window!r}, {convention.estimator!r})
fit.alpha  # {convention.fit(spectrum).alpha:.4f}, of singular values
"""


def command(convention: Convention, point: int, spectrum: Spectrum, mask: str, model: str) -> str:
    """The command line whose JSON holds the alpha, or the spectrum it is fitted to."""
    here = f'"layer": {point}, "metric": "{convention.metric}"'
    if convention.metric is None:
        here = f'"layer": {point}, "prep": "{convention.prep}" of spectra, fitted as in the Python code'
    centre = "" if spectrum.centred else " --set spectral.centre=false"
    return (
        "# prompt.txt holds the text of this run\n"
        f"python -m app run --model {shlex.quote(model)} --text-file prompt.txt --probes spectral --mask {mask} \\\n"
        f"    --points {point}{centre} --store :memory: --json out.json\n"
        f"# {here}\n"
    )
