"""Loading: one set of weights, two faces, and a self-check before anybody sees a number."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from probes.errors import BadRequest, ModelRefused
from probes.model.attention import ATTENTION_NAME, Recorder, recording
from probes.model.catalog import ModelSource
from probes.model.health import check_health
from probes.model.loaded import LoadedModel, ModelFacts
from probes.model.sites import Sites, linear_weight, resolve
from probes.model.variants import change_weights, variant_label
from probes.progress import Progress

__all__ = ["DTYPES", "from_memory", "load", "resolve_device"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_UNNUMBERED = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def resolve_device(device: str) -> str:
    """``auto`` is CUDA where there is one. Raises BadRequest for a device this machine does not have."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" or (device == "cuda" and torch.cuda.is_available()):
        return device
    has = "available" if torch.cuda.is_available() else "not available"
    raise BadRequest(f"device must be auto, cpu or cuda (CUDA is {has} here), not {str(device)[:80]!r}.")


def load(source: ModelSource, dtype: str, device: str, progress: Progress) -> LoadedModel:
    """Load a model from a folder or the hub and check it.

    Safetensors only, no code from the repository. Raises ModelRefused with the reason when the model cannot be loaded
    or fails its self-check, BadRequest for a dtype or device that does not exist or a variant in another dtype.
    """
    if dtype not in DTYPES:
        raise BadRequest(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}.")
    if source.variant is not None and dtype != "float32":
        raise BadRequest(f"{source.name} rounds weights and computes in float32; for {dtype} leave out its variant.")
    place = resolve_device(device)
    where = str(source.folder) if source.folder is not None else str(source.hub_id)
    if source.folder is not None and not list(source.folder.glob("*.safetensors")):
        raise ModelRefused(
            f"{source.name} has no .safetensors weights; other formats can run code and are never opened."
        )
    progress.step(0.05, f"reading the configuration of {source.name}")
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        progress.step(0.15, f"loading the weights of {source.name}")
        hf = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=ATTENTION_NAME,
        )
    except Exception as error:  # whatever a damaged folder makes the libraries raise, people get one sentence
        raise ModelRefused(f"{source.name} could not be loaded: {_first_sentence(error)}") from error
    return from_memory(hf.to(place), tokenizer, source.name, source.weights, progress.part(0.6, 1.0), source.variant)


def from_memory(
    hf: PreTrainedModel,
    tokenizer: Any,
    name: str,
    weights: str | None,
    progress: Progress,
    variant: str | None = None,
) -> LoadedModel:
    """Build and check both faces of a model that is already in memory; the module is switched to our attention.

    A ``variant`` (see :mod:`probes.model.variants`) changes its weights in place and says so in the label. Raises
    ModelRefused when the architecture is not supported, a weight cannot be rounded, or a check fails.
    """
    hf = hf.eval()
    try:
        hf.set_attn_implementation(ATTENTION_NAME)
    except (ValueError, AttributeError) as error:
        raise ModelRefused(
            f"{name} cannot be used: {type(hf).__name__} takes no custom attention function ({_first_sentence(error)})"
        ) from error
    if hf.config._attn_implementation != ATTENTION_NAME:
        raise ModelRefused(f"{name} cannot be used: {type(hf).__name__} silently keeps its own attention function.")
    rows = hf.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelRefused(
            f"{name} cannot be used: its tokenizer has {len(tokenizer)} tokens but the model embeds only {rows}."
        )
    progress.step(0.2, "building the TransformerBridge twin")
    bridge = _twin(hf, tokenizer, name)
    sites = resolve(hf, bridge.adapter.component_mapping)
    if variant is not None:
        progress.step(0.3, f"rounding the weights to {variant}")
        change = change_weights(hf, sites, variant, name)
        weights = variant_label(weights, variant, change)
        bridge = _twin(hf, tokenizer, name)  # where a model stores q, k and v joint, the first twin copied them
    windows = _windows(hf, sites, name)
    progress.step(0.5, "fingerprinting the weights")
    model = LoadedModel(_facts(hf, tokenizer, name, weights, sites, bridge, windows), hf, bridge, tokenizer, sites)
    progress.step(0.8, "self-check")
    model.health = check_health(model)
    failed = [check.says for check in model.health if not check.passed]
    if failed:
        raise ModelRefused(f"{name} failed its self-check: {'; '.join(failed)}.")
    progress.step(1.0, "model ready")
    return model


def _twin(hf: PreTrainedModel, tokenizer: Any, name: str) -> Any:
    """A TransformerBridge over a copy that shares every parameter and buffer.

    The copy must be set to eager itself, or Gemma-2 loses its sliding window.
    """
    from transformer_lens.model_bridge import TransformerBridge

    memo = {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]}
    twin = copy.deepcopy(hf, memo)
    twin.set_attn_implementation("eager")
    device = str(next(hf.parameters()).device)
    own = copy.deepcopy(tokenizer)
    own.bos_token = None  # with one, the bridge would load the tokenizer again by name, from a hub if need be
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TransformerBridge.boot_transformers(_bridge_name(hf), hf_model=twin, tokenizer=own, device=device)
    except ValueError as error:
        raise ModelRefused(f"{name} cannot be used: TransformerLens has no adapter for {type(hf).__name__}.") from error


def _bridge_name(hf: PreTrainedModel) -> str:
    """A label for the bridge that is no alias of a model it knows, so that it takes the configuration it is given."""
    return f"local/{type(hf).__name__}"


def _facts(
    hf: PreTrainedModel,
    tokenizer: Any,
    name: str,
    weights: str | None,
    sites: Sites,
    bridge: Any,
    windows: tuple[int | None, ...],
) -> ModelFacts:
    config = hf.config.get_text_config()
    parameter = next(hf.parameters())
    n_heads = int(config.num_attention_heads)
    unembed = linear_weight(sites.unembed)
    softcap = getattr(config, "final_logit_softcapping", None)
    norm = "rms" if "RMS" in type(bridge.adapter.component_mapping["ln_final"]).__name__ else "layer"
    embedding = hf.get_input_embeddings().weight
    dtype = str(parameter.dtype).removeprefix("torch.")
    return ModelFacts(
        name=name,
        fingerprint=_fingerprint(hf),
        tokenizer=_tokenizer_fingerprint(tokenizer),
        weights=weights or dtype,
        architecture=type(hf).__name__,
        n_layers=len(sites.blocks),
        d_model=int(config.hidden_size),
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        d_head=len(linear_weight(sites.blocks[0].o_proj)) // n_heads,
        d_mlp=len(linear_weight(sites.blocks[0].mlp_down)),
        d_vocab=unembed.shape[1],
        context=int(config.max_position_embeddings),
        tied=unembed.data_ptr() == embedding.data_ptr(),
        bos_id=_bos(tokenizer),
        norm=norm,  # type: ignore[arg-type]
        parallel_blocks=sites.parallel,
        softcap=float(softcap) if softcap else None,
        windows=windows,
        device=str(parameter.device).split(":")[0],
        dtype=dtype,
    )


@torch.no_grad()
def _windows(hf: PreTrainedModel, sites: Sites, name: str) -> tuple[int | None, ...]:
    """The sliding window each block's attention is called with, seen on a pass over four tokens.

    Raises ModelRefused when some block does not attend through our function: its numbers could not be had.
    """
    recorder = Recorder(sites.attention_blocks)
    ids = torch.zeros(1, 4, dtype=torch.long, device=next(hf.parameters()).device)
    with recording(recorder):
        sites.backbone(input_ids=ids, use_cache=False)
    if set(recorder.calls) != set(range(len(sites.blocks))):
        raise ModelRefused(
            f"{name} cannot be used: {type(hf).__name__} ignores our attention function in "
            f"{len(sites.blocks) - len(recorder.calls)} of {len(sites.blocks)} blocks."
        )
    return tuple(recorder.windows[block] for block in range(len(sites.blocks)))


def _bos(tokenizer: Any) -> int | None:
    bos = tokenizer.bos_token_id
    return None if bos is None else int(bos)


def _fingerprint(hf: PreTrainedModel) -> str:
    """Hash of the weights and of the configuration that says how they are used; names and versions do not count."""
    digest = hashlib.blake2b(digest_size=16)
    settings = {k: v for k, v in hf.config.to_diff_dict().items() if k not in _UNNUMBERED}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, parameter in sorted(hf.named_parameters()):
        digest.update(f"{key}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tokenizer_fingerprint(tokenizer: Any) -> str:
    text = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template, tokenizer.all_special_ids])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
