"""From documents to an SAE folder: chunks by document, states as the model has them, a card, equal numbers on reload."""

import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from analysis.topk_sae import TopKConfig, train_topk_sae
from probes.model.forward import forward
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.saes.activations import CONTEXT, Chunks, chunk_documents, collect_states, random_batches
from probes.saes.corpus import SOURCES, Document
from probes.saes.folder import read_info
from probes.saes.loading import load_sae
from probes.saes.train import TrainRequest, train
from probes.saes.wikitext import articles, plain_text
from tests.tiny import loaded


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded("llama")


def _documents() -> list[Document]:
    words = ["water", "stone", "bridge", "paper", "letter", "number", "window", "garden", "market", "silver"]
    texts = [" ".join(words[(i * j + i) % 10] for j in range(120 + 40 * i)) for i in range(8)]
    return [Document("manuals", f"page {i}", text, (), i % 4 == 3, max_chunks=60) for i, text in enumerate(texts)]


def _chunks(model: LoadedModel) -> tuple[Chunks, Chunks]:
    return chunk_documents(_documents(), model.tokenizer, model.facts.bos_id)


def _hooks(model: LoadedModel) -> int:
    return sum(len(module._forward_hooks) for module in model.hf.modules())


def test_documents_are_never_split_between_training_and_held_out(model: LoadedModel) -> None:
    train_part, held_out = _chunks(model)
    assert train_part.ids.shape[1] == held_out.ids.shape[1] == CONTEXT
    assert (torch.cat([train_part.ids, held_out.ids])[:, 0] == model.facts.bos_id).all()
    text = {False: "", True: ""}
    for document in _documents():
        text[document.held_out] += f"{document.text}\n"
    for part, chunks in ((False, train_part), (True, held_out)):
        assert len(chunks.ids) > 3
        assert all(model.tokenizer.decode(row[1:]) in text[part] for row in chunks.ids)


def test_conversations_fill_chunks_in_the_chat_template(model: LoadedModel) -> None:
    tokenizer = model.tokenizer
    template, tokenizer.chat_template = (
        tokenizer.chat_template,
        "{% for m in messages %}<mark>{{ m.content }}{% endfor %}",
    )
    try:
        exchanges = tuple((f"How are you on {day}?", "Well, and you?", "lost") for day in range(10, 30))
        talk = Document("conversations", "talk", "", exchanges, held_out=False, max_chunks=60)
        chunks, _ = chunk_documents([talk], tokenizer, model.facts.bos_id)
    finally:
        tokenizer.chat_template = template
    assert len(chunks.ids) == 5  # four of the twenty exchanges of 34 bytes fill one
    assert "lost" not in tokenizer.decode(chunks.ids[0])
    mark = tokenizer.convert_tokens_to_ids("<mark>")
    assert (chunks.ids[0] == mark).sum() >= 7


def test_a_document_is_used_up_to_its_cap_and_nothing_twice(model: LoadedModel) -> None:
    lines = " ".join(f"line {number} of this text" for number in range(200))
    once, again = (Document("manuals", name, lines, (), held_out=False, max_chunks=9) for name in ("a", "b"))
    chunks, _ = chunk_documents([once, again], model.tokenizer, model.facts.bos_id)
    assert len(chunks.ids) == len({tuple(row) for row in chunks.ids.tolist()}) == 18
    chunks, _ = chunk_documents(
        [once, replace(again, text=lines[: len(lines) // 8])], model.tokenizer, model.facts.bos_id
    )
    assert len(chunks.ids) == 9


def test_states_are_those_of_a_capture_without_position_0(model: LoadedModel, tmp_path: Path) -> None:
    chunks, _ = _chunks(model)
    hooks = _hooks(model)
    states = collect_states(model, chunks, 2, tmp_path, Progress())
    kept = forward(model, chunks.ids[0], frozenset({"resid"}), frozenset(), Progress())["resid.2"][1:]
    first = states.resid[states.chunk == 0].float()
    assert len(states.resid) == len(chunks.ids) * (CONTEXT - 1)
    assert states.n_massive == 0
    assert torch.allclose(first, kept, rtol=2e-3, atol=2e-3)
    assert _hooks(model) == hooks


def test_half_the_precision_moves_states_a_little_and_is_kept_apart(model: LoadedModel, tmp_path: Path) -> None:
    chunks, _ = _chunks(model)
    exact = collect_states(model, chunks, 2, tmp_path, Progress()).resid.float()
    quick = collect_states(model, chunks, 2, tmp_path, Progress(), products=torch.bfloat16).resid.float()
    off = (quick - exact).norm(dim=1) / exact.norm(dim=1)
    assert 0 < off.median() < 0.02


def test_collected_states_are_used_again_only_for_the_same_chunks(model: LoadedModel, tmp_path: Path) -> None:
    chunks, held_out = _chunks(model)
    states = collect_states(model, chunks, 2, tmp_path, Progress())
    part = next(tmp_path.iterdir())
    stamp = part.stat().st_mtime_ns
    assert torch.equal(collect_states(model, chunks, 2, tmp_path, Progress()).resid, states.resid)
    assert part.stat().st_mtime_ns == stamp
    assert len(collect_states(model, held_out, 2, tmp_path, Progress()).resid) == len(held_out.ids) * (CONTEXT - 1)
    assert part.stat().st_mtime_ns != stamp


def test_massive_tokens_are_left_out(model: LoadedModel, tmp_path: Path) -> None:
    chunks, _ = _chunks(model)
    letter = int(chunks.ids[0, 5])
    embedding = model.hf.get_input_embeddings().weight
    before = embedding[letter].clone()
    with torch.no_grad():
        embedding[letter] *= 1e4
    try:
        states = collect_states(model, chunks, 1, tmp_path, Progress())
    finally:
        with torch.no_grad():
            embedding[letter] = before
    assert states.n_massive == (chunks.ids[:, 1:] == letter).sum()
    assert states.resid.float().norm(dim=1).max() < 1e4


def test_each_state_comes_once_an_epoch() -> None:
    states = torch.arange(12, dtype=torch.float16)[:, None].expand(12, 3).contiguous()
    batches = random_batches(states, 4, 2.0, seed=0)
    for _ in range(2):
        seen = torch.cat([next(batches)[:, 0] for _ in range(3)])
        assert sorted(seen.tolist()) == [2.0 * i for i in range(12)]


def test_a_trained_folder_loads_and_its_card_tells_its_numbers(model: LoadedModel, tmp_path: Path) -> None:
    chunks, held_out = _chunks(model)
    out = tmp_path / "first"
    request = TrainRequest(point=2, d_sae=64, k=4, epochs=3.0)
    report = train(model, chunks, held_out, request, tmp_path / "work", out, Progress())
    info = read_info(out)
    assert (info.point, info.k, info.d_sae, info.stored_dtype) == (2, 4, 64, "float16")
    assert info.corpus_variance == report.corpus_variance
    assert info.remark.startswith(f"a small one: {report.n_train:,} tokens")
    states = collect_states(model, held_out, 2, tmp_path / "work" / "held-out", Progress()).resid.float()
    rebuilt, activations = load_sae(info, model.facts).reconstruct(states)
    error = (states - rebuilt).double().square().sum(dim=1).mean() / report.corpus_variance
    assert 1 - error.item() == pytest.approx(report.quality.explained_variance.value, abs=1e-4)
    assert (activations > 0).sum(dim=1).double().mean().item() == pytest.approx(report.quality.l0.value)
    card = (out / "README.md").read_text()
    assert f"{report.quality.explained_variance.value:.4f}" in card
    assert "| loss added, nats (clean" in card
    for source in SOURCES:
        assert f"| {source.kind} | {source.contents} |" in card
        assert source.licence in card
    assert {path.name for path in out.iterdir()} == {
        "cfg.json",
        "sae_weights.safetensors",
        "README.md",
        "training_log.csv",
    }


def test_the_shipped_script_gives_the_numbers_of_one_uninterrupted_loop(model: LoadedModel, tmp_path: Path) -> None:
    chunks, held_out = _chunks(model)
    states = collect_states(model, chunks, 2, tmp_path / "work" / "train", Progress(), products=torch.bfloat16).resid
    scale = math.sqrt(32) / states.float().norm(dim=1).mean().item()
    steps = max(1, round(3.0 * len(states) / 1024))
    config = TopKConfig(d_in=32, d_sae=64, k=4, steps=steps, learning_rate=1e-3, seed=0)
    order = torch.Generator().manual_seed(0)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            rows = torch.randperm(len(states), generator=order)
            for first in range(0, len(rows) - 1024 + 1, 1024):
                yield states[rows[first : first + 1024]].float() * scale

    expected = train_topk_sae(config, batches())[0].with_input_scale(scale)
    request = TrainRequest(point=2, d_sae=64, k=4, epochs=3.0)
    train(model, chunks, held_out, request, tmp_path / "work", tmp_path / "out", Progress())
    weights = load_file(tmp_path / "out" / "sae_weights.safetensors")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(weights[name], getattr(expected, name.lower()).half())


def test_batches_can_be_taken_up_anywhere() -> None:
    states = torch.randn(23, 3).half()
    for start in (0, 1, 4, 5, 13):
        later = random_batches(states, 4, 1.0, seed=0, start=start)
        for whole in itertools.islice(random_batches(states, 4, 1.0, seed=0), start, start + 7):
            assert torch.equal(next(later), whole)
    with pytest.raises(ValueError, match="a batch holds 24 states, but there are only 23"):
        next(random_batches(states, 24, 1.0, seed=0))


def test_wiki_markup_becomes_prose() -> None:
    markup = """{{Infobox|a={{nested|b}}}}'''Tea''' is a [[drink|hot drink]]<ref name="x">Book</ref> of [[leaf|leaves]].
[[File:Tea.jpg|thumb|A [[cup]] of tea]]
{| class="wikitable"
| cell
|}
== History ==
* a list item
It is [http://example.org old].
== References ==
[[Category:Tea]] gone"""
    assert plain_text(markup) == "Tea is a hot drink of leaves.\n\nHistory\n\nIt is old."
    assert plain_text("#REDIRECT [[Tea]]") == ""


def test_articles_of_a_dump_are_named_and_redirects_left_out() -> None:
    page = "<page><title>{}</title><revision><text>{}</text></revision></page>"
    dump = f'<mediawiki xmlns="http://x">{page.format("A", "#REDIRECT [[B]]")}{page.format("B", "Prose.")}</mediawiki>'
    assert list(articles(io.BytesIO(dump.encode()))) == [("B", "Prose.")]
