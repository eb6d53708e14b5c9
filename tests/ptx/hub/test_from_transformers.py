"""Import: tiny random checkpoints, saved by transformers itself, compute the same here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Theirs
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import ptx
from ptx import lens
from ptx.errors import UserError
from ptx.hub.from_transformers import import_model, is_transformers
from ptx.hub.to_transformers import export
from tests.peers import TOLERANCE

VOCAB = 600
END = "<|endoftext|>"
TEXT = Path(__file__).read_text().replace(END, "")
ROTARY: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "eos_token_id": 0,
    "bos_token_id": 0,
}
GPT2: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_positions": 128,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "eos_token_id": 0,
    "bos_token_id": 0,
}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "gpt2, untied": lambda: GPT2LMHeadModel(
        GPT2Config(**GPT2, tie_word_embeddings=False, activation_function="relu", n_inner=96)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**ROTARY)),
    "llama, tied, grouped, with biases": lambda: LlamaForCausalLM(
        LlamaConfig(
            **{**ROTARY, "num_key_value_heads": 2},
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
            head_dim=16,
            **THETA,
        )
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**ROTARY)),
    "qwen2, tied, grouped": lambda: Qwen2ForCausalLM(
        Qwen2Config(**{**ROTARY, "num_key_value_heads": 1}, tie_word_embeddings=True, **THETA)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(**{**ROTARY, "num_key_value_heads": 2}, head_dim=16, tie_word_embeddings=True)
    ),
}


def byte_level(use_regex: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(use_regex=False)]
    )


QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "gpt2": byte_level,
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level()]
    ),
    "numbers whole": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), byte_level()]
    ),
    "qwen": lambda: split(QWEN),
}


def trained(kind: str = "gpt2") -> Theirs:
    """A byte-level BPE trained by tokenizers on this file."""
    made = Theirs(models.BPE())
    made.pre_tokenizer = PRE_TOKENIZERS[kind]()
    made.decoder = decoders.ByteLevel()
    if kind == "qwen":
        made.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Theirs:
    return trained()


def saved(directory: Path, model: Any, tokenizer: Theirs) -> Path:
    model.save_pretrained(directory)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(directory)
    return directory


def scrambled(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_model_computes_the_same(name: str, tokenizer: Theirs, tmp_path: Path) -> None:
    theirs = scrambled(name)
    found = import_model(saved(tmp_path / "theirs", theirs, tokenizer), tmp_path / "ours")
    assert found.notes == []
    model, ours, info = ptx.load_model(tmp_path / "ours")
    assert info["architecture"] == type(theirs).__name__
    ids = torch.randint(VOCAB, (2, 100))
    with torch.no_grad():
        difference = (model(ids) - theirs(ids).logits).abs().max()
    assert difference < TOLERANCE
    assert ours.encode(TEXT) == tokenizer.encode(TEXT, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["gpt2", "llama, tied, grouped, with biases", "qwen2", "qwen3"])
def test_generation_and_the_lens_work_on_it(name: str, tokenizer: Theirs, tmp_path: Path) -> None:
    theirs = scrambled(name)
    import_model(saved(tmp_path / "theirs", theirs, tokenizer), tmp_path / "ours")
    model, ours, _ = ptx.load_model(tmp_path / "ours")
    steps = list(ptx.generate(model, ours, "def f(", ptx.Sampling(0), ptx.Limits(8)))
    assert steps
    ids = [ours.eot, *ours.encode("import torch\n")]
    attention = lens.attention(model, ids)
    with torch.no_grad():
        theirs.set_attn_implementation("eager")
        seen = theirs(torch.tensor([ids]), output_attentions=True).attentions
    assert (attention - torch.cat(seen)).abs().max() < TOLERANCE
    traced = lens.trace(model, ids)
    parts = lens.attribution(model, traced, 5)
    assert abs(parts.sum() - parts.total) < 1e-3


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_export_and_import_give_the_model_back(
    name: str, tokenizer: Theirs, tmp_path: Path
) -> None:
    import_model(saved(tmp_path / "theirs", scrambled(name), tokenizer), tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "again")
    import_model(tmp_path / "again", tmp_path / "back")
    first, second = (ptx.load_model(tmp_path / name) for name in ("ours", "back"))
    assert first[0].config == second[0].config
    for a, b in zip(first[0].state_dict().values(), second[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert first[1].encode(TEXT) == second[1].encode(TEXT)


def test_weights_keep_their_precision_and_may_be_in_several_files(
    tokenizer: Theirs, tmp_path: Path
) -> None:
    theirs = scrambled("llama").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}


def test_a_shorter_context_changes_no_shorter_text(tokenizer: Theirs, tmp_path: Path) -> None:
    for name in ("gpt2", "qwen3"):
        theirs = scrambled(name)
        source = saved(tmp_path / name, theirs, tokenizer)
        found = import_model(source, tmp_path / "ours", context=32)
        assert found.notes == ["it sees 32 of its 128 tokens (--context for more)"]
        model, _, _ = ptx.load_model(tmp_path / "ours")
        ids = torch.randint(VOCAB, (1, 32))
        with torch.no_grad():
            assert (model(ids) - theirs(ids).logits).abs().max() < TOLERANCE


def test_opening_one_as_it_is_says_how(tokenizer: Theirs, tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs", MODELS["gpt2"](), tokenizer)
    with pytest.raises(UserError, match="is a checkpoint of transformers: make a model directory"):
        ptx.load_model(source)


def changed(directory: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((directory / file).read_text())
    change(content)
    (directory / file).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("gpt2", {"model_type": "bloom"}, "model_type is 'bloom', and P-Transformer takes gpt2 or"),
        ("gpt2", {"model_type": ["gpt2"]}, r"model_type is \['gpt2'\]"),
        ("gpt2", {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ("gpt2", {"activation_function": {}}, r"activation_function is \{\}"),
        (
            "llama",
            {"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 4},
            r"config\.json says sizes that no memory holds",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is"),
        ("gpt2", {"n_embd": 50}, "n_embd is 50, and P-Transformer takes a multiple of n_head"),
        ("gpt2", {"n_layer": 10**9}, "config.json says 1000000000 layers"),
        ("gpt2", {"n_layer": "2"}, "n_layer is '2', and P-Transformer takes a whole number"),
        ("gpt2", {"vocab_size": 10**9}, "tok_emb.weight has shape"),
        ("gpt2", {"vocab_size": 10**30}, "vocab_size is 1000.*, and P-Transformer takes a whole"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config is 'set'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is 'linear'"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
            "rope_parameters is 'llama3', and P-Transformer takes plain rotary",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True, and P-Transformer takes what attention"),
        ("llama", {"num_key_value_heads": 3}, "must be a multiple of n_kv_head"),
        ("llama", {"tie_word_embeddings": True}, "'lm_head.weight' differs"),
        ("llama", {"hidden_size": 64}, "tok_emb.weight has shape"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "layer_types is"),
        ("qwen2", {"layer_types": 3}, "layer_types is 3, and P-Transformer takes full_attention"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("qwen3", {"model_type": "llama"}, "has no place in this family"),
        ("qwen3", {"num_hidden_layers": 3}, "tensor 'model.layers.2.input_layernorm.weight' is mi"),
    ],
)
def test_another_shape_is_refused_by_the_first_field_that_differs(
    name: str, fields: dict[str, Any], sentence: str, tokenizer: Theirs, tmp_path: Path
) -> None:
    source = saved(tmp_path / "theirs", MODELS[name](), tokenizer)
    changed(source, "config.json", lambda config: config.update(fields))
    with pytest.raises(UserError, match=sentence):
        import_model(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_configuration_without_end_is_a_sentence(tokenizer: Theirs, tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs", MODELS["gpt2"](), tokenizer)
    for name, sentence in (
        ("tokenizer.json", r"tokenizer\.json is not a byte-level BPE"),
        ("config.json", r"config\.json cannot be read as JSON"),
    ):
        (source / name).write_text("[" * 100_000)
        with pytest.raises(UserError, match=sentence):
            import_model(source, tmp_path / "ours")
    assert not is_transformers(source)


@pytest.mark.parametrize("name", ["transformer.h.0.attn.c_attn.weight", "transformer.wpe.weight"])
def test_a_tensor_without_dimensions_is_refused_by_name(
    name: str, tokenizer: Theirs, tmp_path: Path
) -> None:
    source = saved(tmp_path / "theirs", MODELS["gpt2"](), tokenizer)
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, name: torch.tensor(1.0)}, source / "model.safetensors")
    with pytest.raises(UserError, match=f"tensor '{name}' is a single number"):
        import_model(source, tmp_path / "ours")


def test_a_checkpoint_is_not_replaced_by_what_is_made_of_it(
    tokenizer: Theirs, tmp_path: Path
) -> None:
    source = saved(tmp_path / "theirs", MODELS["gpt2"](), tokenizer)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    (tmp_path / "link").symlink_to(source)
    for place in (source, tmp_path / "link"):
        with pytest.raises(UserError, match="is what the model is made of: name another dir"):
            import_model(source, place)
    assert before == {path.name: path.read_bytes() for path in source.iterdir()}


def test_pickle_is_refused_with_the_reason(tokenizer: Theirs, tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs", MODELS["gpt2"](), tokenizer)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"can run any program hidden in it.*safetensors only"):
        import_model(source, tmp_path / "ours")


def test_an_index_may_not_point_elsewhere(tokenizer: Theirs, tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs", MODELS["gpt2"](), tokenizer)
    (source / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    for place in ("../elsewhere.safetensors", ["elsewhere.safetensors"]):
        index = {"weight_map": {"transformer.wte.weight": place}}
        (source / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="does not name files beside it"):
            import_model(source, tmp_path / "ours")


def test_old_names_and_buffers_are_understood(tokenizer: Theirs, tmp_path: Path) -> None:
    """GPT-2's own checkpoint has neither the prefix nor a head, and masks."""
    theirs = scrambled("gpt2")
    source = saved(tmp_path / "theirs", theirs, tokenizer)
    tensors = load_file(source / "model.safetensors")
    old = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 128, 128)
    save_file(old, source / "model.safetensors")
    import_model(source, tmp_path / "ours")
    model, _, _ = ptx.load_model(tmp_path / "ours")
    ids = torch.randint(VOCAB, (1, 9))
    with torch.no_grad():
        assert (model(ids) - theirs(ids).logits).abs().max() < TOLERANCE
