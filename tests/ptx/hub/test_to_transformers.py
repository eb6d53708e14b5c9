"""Export: transformers' own classes load what is written and compute what we do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as Theirs
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from ptx.checkpoint import save_model
from ptx.config import PRESETS, ModelConfig
from ptx.engine import generate
from ptx.errors import UserError
from ptx.hub.bpe import tokenizer_json
from ptx.hub.to_transformers import as_transformers, export
from ptx.model import GPT
from ptx.sampling import USUAL, Sampling
from ptx.stream import Limits
from ptx.tokenizer import Tokenizer
from tests.peers import TOLERANCE

NANO = replace(PRESETS["nano"], n_layer=2)
REFERENCE = replace(PRESETS["reference"], vocab_size=NANO.vocab_size, n_layer=2)
SHAPES = {
    "modern": (NANO, "Qwen3ForCausalLM"),
    "untied, grouped-query": (replace(NANO, tied_head=False, n_kv_head=2), "Qwen3ForCausalLM"),
    "without q/k norm": (replace(NANO, qk_norm=False, rope_theta=5e4), "LlamaForCausalLM"),
    "with all biases": (
        replace(NANO, qk_norm=False, bias=True, qkv_bias=True),
        "LlamaForCausalLM",
    ),
    "with q, k, v biases": (replace(NANO, qk_norm=False, qkv_bias=True), "Qwen2ForCausalLM"),
    "the reference, its head's bias too": (REFERENCE, "GPT2LMHeadModel"),
    "its head tied, with a bias": (replace(REFERENCE, tied_head=True), "GPT2LMHeadModel"),
    "GPT-2 itself": (
        replace(REFERENCE, mlp="gelu", qkv_bias=True, head_bias=False, tied_head=True),
        "GPT2LMHeadModel",
    ),
    "GPT-2 without biases": (replace(REFERENCE, bias=False, head_bias=False), "GPT2LMHeadModel"),
}


def random_model(config: ModelConfig) -> GPT:
    """No weight is zero, one or shared by chance, biases of the head included."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
            parameter.copy_(torch.randn_like(parameter) * 0.1 + gain)
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_computes_the_same_logits(
    shape: str, tmp_path: Path, py16k: Tokenizer
) -> None:
    config, name = SHAPES[shape]
    model = random_model(config)
    save_model(tmp_path / "model", model, py16k)
    assert export(tmp_path / "model", tmp_path / "out") == name
    theirs, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert type(theirs).__name__ == name
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.randint(config.vocab_size, (2, config.context))
    with torch.no_grad():
        difference = (model(ids) - theirs.eval()(ids).logits).abs().max()
    assert difference < TOLERANCE


def test_a_head_bias_costs_one_dimension_a_head() -> None:
    model = random_model(REFERENCE)
    config, weights = as_transformers(model)
    assert config["n_embd"] == 384 + 6
    assert weights["lm_head.weight"].shape == (NANO.vocab_size, 390)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"norm": "layer"}, "GPT2LMHeadModel, has position = learned, and the model rotary"),
        ({"head_bias": True}, "Qwen3ForCausalLM, has head_bias = False, and the model True"),
        ({"mlp": "relu"}, "Qwen3ForCausalLM, has mlp = swiglu, and the model relu"),
        ({"qkv_bias": True}, "Qwen3ForCausalLM, has qkv_bias = False, and the model True"),
    ],
)
def test_a_shape_that_transformers_lacks_is_refused_by_its_switch(
    tmp_path: Path, py16k: Tokenizer, change: dict[str, object], sentence: str
) -> None:
    save_model(tmp_path / "model", GPT(replace(NANO, **change)), py16k)
    with pytest.raises(UserError, match=sentence):
        export(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_stores_what_is_asked_for(tmp_path: Path, py16k: Tokenizer) -> None:
    save_model(tmp_path / "model", GPT(NANO), py16k)
    export(tmp_path / "model", tmp_path / "out", "bfloat16")
    kinds = {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, py16k: Tokenizer) -> tuple[GPT, Path]:
    home = tmp_path_factory.mktemp("exported")
    model = random_model(replace(NANO, context=64))
    save_model(home / "model", model, py16k)
    export(home / "model", home / "out")
    return model, home / "out"


def test_the_pipeline_writes_what_our_engine_writes(
    exported: tuple[GPT, Path], py16k: Tokenizer
) -> None:
    model, directory = exported
    prompt = "def fibonacci(n):\n    return"  # its end is open to no other tokens that matter here
    written = pipeline("text-generation", str(directory))(
        prompt, do_sample=False, max_new_tokens=12, return_full_text=False
    )[0]["generated_text"]
    ids = [py16k.eot, *py16k.encode(prompt)]
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert written == py16k.text(ids[-12:])


def test_greedy_texts_agree_where_no_prompt_is_open(
    exported: tuple[GPT, Path], py16k: Tokenizer
) -> None:
    model, directory = exported
    theirs = AutoModelForCausalLM.from_pretrained(directory)
    prompt = AutoTokenizer.from_pretrained(directory)("", return_tensors="pt")
    assert prompt.input_ids.tolist() == [[py16k.eot]]
    made = theirs.generate(**prompt, do_sample=False, max_new_tokens=20)[0, 1:].tolist()
    ours = generate(model, py16k, "", Sampling(temperature=0), Limits(20))
    list(ours)
    assert made == ours.ids[1:]


def test_only_an_earlier_export_is_replaced(exported: tuple[GPT, Path], tmp_path: Path) -> None:
    model, out = exported[1].with_name("model"), tmp_path / "out"
    for _ in range(2):
        export(model, out)
        (out / ".DS_Store").touch()  # of macOS, which shows the folder
    (out / "notes.txt").touch()
    with pytest.raises(UserError, match=r"beside an earlier model it holds 'notes\.txt'"):
        export(model, out)
    mine = shutil.copytree(model, tmp_path / "mine")
    with pytest.raises(UserError, match=r"holds 'tokenizer\.tiktoken'"):
        export(model, mine)
    (tmp_path / "link").symlink_to(mine)
    for place in (mine, tmp_path / "link"):
        with pytest.raises(UserError, match="is what the model is made of: name another dir"):
            export(mine, place)
    assert (mine / "tokenizer.tiktoken").exists()


def test_texts_are_utf8_whatever_the_locale(exported: tuple[GPT, Path], tmp_path: Path) -> None:
    """A person's note, and what the Space takes from the README, have more letters than ASCII."""
    model = shutil.copytree(exported[1].with_name("model"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"info": {"note": "naïve"}}, ensure_ascii=False), "utf-8"
    )
    code = (
        "import sys; from pathlib import Path; from ptx.hub import export; "
        "from ptx.hub.space import contents, write; from ptx.hub.upload import stage\n"
        "model, out = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "export(model, out / 'export'); write(contents(model), out / 'space')\n"
        "(out / 'card').mkdir(); stage(model, out / 'card', 'me/tiny')"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", code, model, tmp_path], env=environment, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    for place in ("export", "card"):
        assert "naïve" in (tmp_path / place / "README.md").read_text("utf-8")


def test_it_names_end_of_text_and_our_knobs(exported: tuple[GPT, Path], py16k: Tokenizer) -> None:
    _, directory = exported
    knobs = json.loads((directory / "generation_config.json").read_text())
    assert knobs["eos_token_id"] == py16k.eot
    for knob in ("temperature", "top_k", "top_p", "min_p"):
        assert knobs[knob] == getattr(USUAL, knob)


def test_token_ids_are_ours_on_installed_packages(
    exported: tuple[GPT, Path], py16k: Tokenizer
) -> None:
    """A hundred files spread over all of them; prepare/ keeps whole ones for validation."""
    theirs = AutoTokenizer.from_pretrained(exported[1])
    files = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    for path in files[:: max(1, len(files) // 100)]:
        text = path.read_bytes().decode("utf-8", "ignore")
        assert theirs(text, add_special_tokens=False).input_ids == py16k.encode(text), path
        assert theirs(text[:50]).input_ids[0] == py16k.eot


def test_end_of_text_written_in_a_file_is_text(
    exported: tuple[GPT, Path], py16k: Tokenizer
) -> None:
    theirs = AutoTokenizer.from_pretrained(exported[1])
    text = 'END = "<|endoftext|>"\n'
    ids = theirs(text, add_special_tokens=False).input_ids
    assert ids == py16k.encode(text)
    assert theirs.decode(ids) == text
    assert theirs.decode([*ids, py16k.eot], skip_special_tokens=True) == text


def test_the_originals_vocabulary_too(o200k: Tokenizer) -> None:
    theirs = Theirs.from_str(json.dumps(tokenizer_json(o200k)))
    theirs.encode_special_tokens = True
    assert theirs.token_to_id("<|endoftext|>") == o200k.eot
    text = Path(__file__).read_text() + "\n\n  naïve 数字 ١٢٣ it's IT'S\r\n\tx ≠ y  \n"
    assert theirs.encode(text, add_special_tokens=False).ids == o200k.encode(text)
