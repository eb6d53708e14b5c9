"""Push: what goes to the Hub, and what a person reads when it does not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from ptx.errors import UserError
from ptx.hub.upload import push
from ptx.model import GPT
from ptx.tokenizer import Tokenizer
from tests.ptx.hub.stand_in import Fault, Repositories

SENT = {
    ".gitattributes",
    "README.md",
    "config.json",
    "curve.png",
    "metrics.jsonl",
    "model.safetensors",
    "samples.md",
    "tokenizer.tiktoken",
}


def test_a_model_goes_with_its_card_and_nothing_else(hub: Repositories, directory: Path) -> None:
    address = push(directory, "me/tiny")
    files = hub.repositories["me/tiny"].files()
    assert set(files) == SENT
    assert hub.url in address
    for name in ("config.json", "model.safetensors", "tokenizer.tiktoken", "metrics.jsonl"):
        assert files[name] == (directory / name).read_bytes()
    assert len([c for c in hub.calls if "/commit/" in c]) == 1
    assert not hub.repositories["me/tiny"].private


def test_the_card_is_made_of_the_figures(hub: Repositories, directory: Path) -> None:
    push(directory, "me/tiny")
    files = hub.repositories["me/tiny"].files()
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "mit"
    assert card.data.library_name == "p-transformer"
    assert card.data.tags == ["python"]
    assert card.data.datasets == ["somebody/code"]
    results = [(r.metric_type, r.dataset_split, r.metric_value) for r in card.data.eval_results]
    assert results == [("bits_per_byte", "test", 3.5), ("bits_per_byte", "validation", 3.25)]
    assert "python -m ptx.hub pull me/tiny checkpoints/tiny" in card.text
    assert 'ptx.GPT.from_pretrained("me/tiny")' in card.text
    assert "![Bits per byte over minutes of training](curve.png)" in card.text
    assert card.text.index("Words.") < card.text.index("From the Hub") < card.text.index("Very.")
    image = Image.open(io.BytesIO(files["curve.png"]))
    assert image.size == (1440, 720)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert {(79, 70, 229), (165, 180, 252)} <= colours  # both lines


def test_pushing_again_changes_the_card_in_place(
    hub: Repositories, directory: Path, copied: Path
) -> None:
    push(directory, "me/tiny")
    (copied / "README.md").write_bytes(hub.repositories["me/tiny"].files()["README.md"])
    push(copied, "me/other")
    text = hub.repositories["me/other"].files()["README.md"].decode()
    assert text.count("## From the Hub") == 1
    assert "me/tiny" not in text


def test_a_model_without_a_card_gets_one_that_claims_nothing(
    hub: Repositories, copied: Path
) -> None:
    (copied / "README.md").unlink()
    config = json.loads((copied / "config.json").read_text())
    config["info"] = {"step": 3}
    (copied / "config.json").write_text(json.dumps(config))
    push(copied, "me/tiny")
    card = ModelCard(hub.repositories["me/tiny"].files()["README.md"].decode())
    assert card.data.eval_results is None
    assert "as logged in training | 3.3" in card.text


def test_an_imported_model_names_where_it_came_from(hub: Repositories, copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["info"] = {"imported_from": "them/model"}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: x/y\n---\n# Theirs\n")
    push(copied, "me/theirs")
    card = ModelCard(hub.repositories["me/theirs"].files()["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "them/model")
    (copied / "README.md").write_text("---\nlicense: [\n---\n# Theirs\n")
    with pytest.raises(UserError, match="does not begin with readable YAML"):
        push(copied, "me/theirs")


def test_a_checkpoint_of_a_run_brings_the_runs_metrics(
    hub: Repositories, copied: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "nano"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (copied / "metrics.jsonl").rename(run / "metrics.jsonl")
    copied.rename(run / "checkpoints" / "step_000003")
    push(run, "me/nano")
    assert set(hub.repositories["me/nano"].files()) == SENT


def test_private_branch_and_token_reach_the_hub(hub: Repositories, directory: Path) -> None:
    push(directory, "me/tiny", private=True, branch="try")
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert set(repository.files("try")) == SENT
    assert set(repository.files("main")) == {".gitattributes"}
    with pytest.raises(UserError, match=r"\(401\): check the name; .* log in"):
        push(directory, "me/tiny", token="hf_wrong")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("POST", "/repos/create", 401), "log in with `hf auth login`"),
        (Fault("POST", "/repos/create", 403), "Your token may not write to me/tiny"),
        (Fault("POST", "/commit/", 409), "changed by someone else meanwhile"),
        (Fault("POST", "/commit/", 412), "changed by someone else meanwhile"),
        (Fault("POST", "/preupload/", 404), "no such model, commit or file"),
        (Fault("POST", "/commit/", 418), "The Hub answered 418 for me/tiny"),
        (Fault("POST", "/commit/", 429, times=99), "asks for a pause"),
    ],
)
def test_a_refusal_is_a_sentence_and_changes_nothing(
    hub: Repositories, directory: Path, fault: Fault, sentence: str, fast_retries: None
) -> None:
    hub.faults.append(fault)
    with pytest.raises(UserError, match=sentence):
        push(directory, "me/tiny")
    if repository := hub.repositories.get("me/tiny"):
        assert set(repository.files()) == {".gitattributes"}


def test_a_broken_upload_is_tried_again(
    hub: Repositories, directory: Path, fast_retries: None
) -> None:
    hub.faults.append(Fault("PUT", "/lfs/", 503, times=2))
    push(directory, "me/tiny")
    assert set(hub.repositories["me/tiny"].files()) == SENT


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_a_broken_model_is_not_pushed(hub: Repositories, copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="is damaged"):
        push(copied, "me/tiny")
    assert hub.repositories == {}


# From Python


def test_push_to_hub_and_from_pretrained_belong_together(
    hub: Repositories, directory: Path, tmp_path: Path
) -> None:
    model = GPT.from_pretrained(directory)
    assert "/commit/" in model.push_to_hub("me/tiny", commit_message="First")
    assert set(hub.repositories["me/tiny"].files()) == SENT
    again = GPT.from_pretrained("me/tiny")
    assert not again.training
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    ours = Tokenizer.from_pretrained("me/tiny")
    assert ours.fingerprint == Tokenizer.from_pretrained(directory).fingerprint
    again.save_pretrained(tmp_path / "saved")
    assert {p.name for p in (tmp_path / "saved").iterdir()} == SENT - {".gitattributes"}


def test_changed_weights_lose_the_figures_of_the_old_ones(
    hub: Repositories, directory: Path
) -> None:
    model = GPT.from_pretrained(directory)
    with torch.no_grad():
        model.norm.weight.add_(1)
    model.push_to_hub("me/tuned")
    files = hub.repositories["me/tuned"].files()
    assert set(files) == SENT - {"metrics.jsonl", "curve.png", "samples.md"}
    assert "3.25" not in files["README.md"].decode()


def test_a_model_made_here_needs_its_tokenizer(
    hub: Repositories, model: GPT, py16k: Tokenizer
) -> None:
    with pytest.raises(UserError, match=r"pass tokenizer=\.\.\."):
        model.push_to_hub("me/new")
    model.push_to_hub("me/new", tokenizer=py16k, info={"note": "mine"}, private=True)
    assert GPT.from_pretrained("me/new", token="hf_right").config == model.config
