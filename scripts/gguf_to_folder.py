"""Turn a GGUF file into a folder that vLLM loads: `python gguf_to_folder.py FILE FOLDER`, in the vLLM environment.

vLLM for CPUs has no loader for GGUF, and transformers loads such a file but does not save it again, so the weights
are written here: dequantised to bfloat16. The folder has a digest of its own: it is another model than the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> int:
    """Write the folder; the tokenizer comes last, so that a folder with one is whole."""
    source, target = Path(arguments[0]), Path(arguments[1])
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    target.mkdir(parents=True, exist_ok=True)
    weights = {k: v.contiguous().to(torch.bfloat16) for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    write(target / "config.json", config_of(model))
    write(target / "generation_config.json", generation_of(tokenizer))
    tokenizer.save_pretrained(target)
    return 0


def config_of(model: Any) -> dict[str, Any]:
    """The model's own settings, without a trace of the quantisation."""
    config: dict[str, Any] = {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    return {**config, "architectures": [type(model).__name__], "dtype": "bfloat16"}


def generation_of(tokenizer: Any) -> dict[str, Any]:
    """Where a reply ends: the end of a turn, or that of a text."""
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")} - {None}
    return {"eos_token_id": sorted(ends), "pad_token_id": tokenizer.pad_token_id}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write one JSON file, the same bytes each time."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
