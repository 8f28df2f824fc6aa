"""Tokenizers and the quiet settings of the Hugging Face libraries, the same in every process of a body."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..errors import WorkloadFailed
from ..models import resolve_model

_QUIET = {
    # One thread a shard is what the plan counted on; forked tokenizer threads deadlock.
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


def quiet() -> None:
    """Before transformers is imported: no progress bars, no advice, no threads of its own."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def model_folder(reference: str) -> str:
    """`resolve_model`, with its errors as WorkloadFailed."""
    try:
        return resolve_model(reference)
    except FileNotFoundError as error:
        raise WorkloadFailed(str(error)) from error


def load_tokenizer(reference: str) -> Any:
    """The model's tokenizer with a pad token. Raises WorkloadFailed where there is none."""
    quiet()
    folder = model_folder(reference)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise WorkloadFailed(f"model {reference} has no tokenizer that loads: {_first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise WorkloadFailed(f"the tokenizer of model {reference} has neither a pad nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, truncated and not padded."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    return list(encoded["input_ids"])


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
