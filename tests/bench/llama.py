"""llama.cpp on our weights: a GGUF file of its Qwen3, and the speed of one stream."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ptx.model import GPT

PACKAGES = ("llama_cpp", "gguf")
"""Of `pip install llama-cpp-python gguf`; the first compiles llama.cpp for half an hour."""


def missing() -> list[str]:
    """Those of PACKAGES that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def write_gguf(model: GPT, path: Path, kind: str) -> None:
    """A model of the `modern` family, its matrices in kind: F32, F16, BF16 or Q8_0.

    Its vocabulary has our size and no words: what is timed takes and gives token ids.
    """
    import gguf

    c, precision = model.config, gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.d_model)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(c.d_mlp)
    writer.add_head_count(c.n_head)
    writer.add_head_count_kv(c.n_kv_head)
    writer.add_key_length(c.head_size)
    writer.add_value_length(c.head_size)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(c.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * c.vocab_size)
    writer.add_token_merges(["t 1"])
    for name, tensor in _tensors(model):
        values = tensor.detach().float().numpy()
        kept = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else precision
        writer.add_tensor(name, gguf.quantize(values, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(model: GPT) -> Iterator[tuple[str, object]]:
    """Every weight with its name in GGUF; the head is the embedding."""
    yield "token_embd.weight", model.tok_emb.weight
    yield "output_norm.weight", model.norm.weight
    for i, block in enumerate(model.blocks):
        attn, mlp = block.attn, block.mlp
        parts = {
            "attn_norm": block.attn_norm, "attn_q": attn.q, "attn_k": attn.k, "attn_v": attn.v,
            "attn_q_norm": attn.q_norm, "attn_k_norm": attn.k_norm, "attn_output": attn.out,
            "ffn_norm": block.mlp_norm, "ffn_gate": mlp.gate, "ffn_up": mlp.up,
            "ffn_down": mlp.down,
        }  # fmt: skip
        yield from ((f"blk.{i}.{name}.weight", part.weight) for name, part in parts.items())


class LlamaCpp:
    """llama-cpp-python's `generate`, the most likely tokens, in the given precision."""

    def __init__(self, model: GPT, ids: list[int], kind: str, threads: int) -> None:
        from llama_cpp import Llama

        self.ids = ids
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.gguf")
            write_gguf(model, path, kind)
            self.llama = Llama(
                str(path), n_ctx=model.config.context, n_threads=threads,
                n_threads_batch=threads, use_mmap=False, verbose=False,
            )  # fmt: skip

    def tokens(self, new: int) -> list[int]:
        """The text's next tokens."""
        self.llama.reset()
        made = self.llama.generate(self.ids, temp=0.0, top_k=1)
        return [token for token, _ in zip(made, range(new))]

    def rate(self, new: int) -> float:
        """New tokens per second, the prompt's reading left out."""
        return (new - 1) / (self._seconds(new) - self._seconds(1))

    def _seconds(self, new: int) -> float:
        started = time.perf_counter()
        self.tokens(new)
        return time.perf_counter() - started
