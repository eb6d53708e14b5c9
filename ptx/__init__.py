"""P-Transformer: a GPT for Python code, built to be watched and taken apart.

model, tokenizer, info = ptx.load_model("checkpoints/mini")
for step in ptx.generate(model, tokenizer, "def fibonacci(n):", ptx.Sampling(temperature=0.8)):
    print(step.text, end="")
"""

from ptx.checkpoint import load_model, save_model
from ptx.config import PRESETS, ModelConfig, preset
from ptx.corpus import Corpus
from ptx.engine import Step, generate
from ptx.errors import UserError
from ptx.model import GPT, KVCache
from ptx.sampling import Sampling
from ptx.tokenizer import Tokenizer, get_tokenizer

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "PRESETS",
    "Corpus",
    "KVCache",
    "ModelConfig",
    "Sampling",
    "Step",
    "Tokenizer",
    "UserError",
    "generate",
    "get_tokenizer",
    "load_model",
    "preset",
    "save_model",
]
