"""P1: one captured pass against a bare eager forward; what it keeps against a cache of everything; where a run's time goes."""

import copy
import statistics
import time

import torch

from benchmarks.pairs import compare
from cache.store import Store
from probes.model.catalog import EMBEDDED
from probes.model.forward import forward
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.plan import make_plan
from probes.progress import Progress
from probes.prompts import examples
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.runner import Runner

__all__ = ["rows"]

TOKENS = 256
PART_ROUNDS = 3


def rows(shelf: Shelf) -> list[tuple[str, str, str]]:
    """Rows ``what, goal, measured``."""
    model = shelf.get(EMBEDDED)
    text = " ".join(example.text for example in examples())
    ids = text_ids(model, text)[:TOKENS]
    request = RunRequest(EMBEDDED, ids, DEFAULT_PROBES)
    plan = make_plan(request, model.facts)
    tokens = torch.tensor(ids)

    memo = {id(tensor): tensor for tensor in [*model.hf.parameters(), *model.hf.buffers()]}
    eager = copy.deepcopy(model.hf, memo)
    eager.set_attn_implementation("eager")

    def captured() -> dict[str, torch.Tensor]:
        return forward(model, tokens, plan.sites, plan.reductions, Progress())

    @torch.no_grad()
    def bare() -> None:
        eager(tokens[None], output_hidden_states=True, output_attentions=True, use_cache=False)

    @torch.no_grad()
    def backbone() -> None:
        eager.base_model(tokens[None], output_hidden_states=True, output_attentions=True, use_cache=False)

    kept = sum(tensor.nbytes for tensor in captured().values())
    everything = _cache_all(model, tokens)
    return [
        (
            f"P1 pass, {len(ids)} tokens, against HF eager with hidden states and attentions",
            "<= 1.5",
            str(compare(captured, bare)),
        ),
        ("P1 the same, rival without its unembedding", "-", str(compare(captured, backbone))),
        (
            "P1 bytes kept against TransformerLens cache-all",
            "<= 0.25",
            f"{kept / everything:.3f} ({kept >> 20} of {everything >> 20} MB)",
        ),
        *_parts(shelf, request),
    ]


@torch.no_grad()
def _cache_all(model: LoadedModel, tokens: torch.Tensor) -> int:
    _, cache = model.bridge.run_with_cache(tokens[None])
    return sum(
        {tensor.data_ptr(): tensor.nbytes for tensor in cache.values() if isinstance(tensor, torch.Tensor)}.values()
    )


def _parts(shelf: Shelf, request: RunRequest) -> list[tuple[str, str, str]]:
    """Medians of a fresh Overview run and of each probe on its stored capture (reading it back is part of each)."""
    model = shelf.get(EMBEDDED)
    model.mean_bank(Progress())
    totals: list[float] = []
    again: list[float] = []
    parts: dict[str, list[float]] = {call.name: [] for call in request.probes}
    lens = ProbeCall("lens", {"positions": "all"})
    parts["lens, all positions"] = []
    for _ in range(PART_ROUNDS):
        with Store.open(":memory:") as store:
            runner = Runner(store, shelf)
            totals.append(runner.run(request).info.seconds)
            start = time.perf_counter()
            opened = runner.open(runner.run(request).info.run_id)
            assert opened is not None
            for name in opened.table_names:
                opened.table(name)
            again.append(time.perf_counter() - start)
            for call in request.probes:
                if call.name != "events":
                    parts[call.name].append(runner.run(request.with_probes(call)).info.seconds)
            parts["lens, all positions"].append(runner.run(request.with_probes(lens)).info.seconds)
    listed = ", ".join(f"{name} {statistics.median(times):.2f}" for name, times in parts.items() if times)
    total = statistics.median(totals)
    return [
        ("Overview, fresh run, seconds", "-", f"{total:.2f}"),
        ("Its parts from the stored capture, seconds", "-", listed),
        ("P7 opened again with every table", "<= 3 %", f"{statistics.median(again) / total:.1%}"),
    ]
