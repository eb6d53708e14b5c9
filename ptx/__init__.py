"""P-Transformer: a GPT for Python code, built to be watched and taken apart.

    model, tokenizer, info = ptx.load_model("checkpoints/mini")
    for step in ptx.generate(model, tokenizer, "def fibonacci(n):", ptx.Sampling(temperature=0.8)):
        print(step.text, end="")

The network           config, model, loss; lens/ takes it apart
Text and tokens       tokenizer, corpus (token files); prefix and guard ask Python's parser what can
                      still become Python
The next token        sampling; healing (kinds, merges), where a prompt ends inside one; lookup
                      guesses it
A text, and many      stream, decoder, batch, engine
As fast as it can be  native is a step as one compiled function: tile, team (threads), memory,
                      compiled, compiling (beside the page), int8; draws is the sampler once more,
                      onward goes on with what it drew; fastest chooses by timing
Files                 checkpoint, runlog, atomic; hub/ is Hugging Face's
For people            __main__ (the terminal), playground/ (the page), errors, unbreakable (output)

Names are imported when they are first used: preparing data needs no torch, which takes seconds
and hundreds of megabytes in each worker process.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.3.0"

_HOME = {
    "GPT": "model",
    "KVCache": "model",
    "PRESETS": "config",
    "ModelConfig": "config",
    "preset": "config",
    "Corpus": "corpus",
    "Engine": "engine",
    "Generation": "engine",
    "generate": "engine",
    "Limits": "stream",
    "Step": "stream",
    "Choice": "sampling",
    "Sampling": "sampling",
    "Tokenizer": "tokenizer",
    "get_tokenizer": "tokenizer",
    "UserError": "errors",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
