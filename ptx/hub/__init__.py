"""Out into the world: the Hugging Face Hub, Spaces, and transformers both ways.

    python -m ptx.hub push checkpoints/mini user/name      a model repository with its card
    python -m ptx.hub pull user/name checkpoints/name
    python -m ptx.hub space user/name                      the playground, on a public page
    python -m ptx.hub export checkpoints/mini OUT          for what loads transformers' models
    python -m ptx.hub import NAME_OR_DIR OUT               GPT-2, Llama, Qwen2 and Qwen3 shapes

huggingface_hub is imported when it is used, transformers never.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "hub_model": "download",
    "local_model": "download",
    "pull": "download",
    "push": "upload",
    "space": "space",
    "export": "to_transformers",
    "import_model": "from_transformers",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
