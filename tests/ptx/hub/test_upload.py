"""Push: what goes to the Hub, and what a person reads when it does not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image, ImageDraw

from ptx.errors import UserError
from ptx.hub.card import card
from ptx.hub.curve import curves, draw
from ptx.hub.upload import push, stage
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


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """An empty place for what would go to the Hub."""
    (tmp_path / "staged").mkdir()
    return tmp_path / "staged"


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


def test_a_card_without_figures_is_taken_again(copied: Path, tmp_path: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"info": {}}))
    GPT.from_pretrained(copied).save_pretrained(tmp_path / "first")
    GPT.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    data = ModelCard((tmp_path / "second" / "README.md").read_text()).data
    assert (data.model_name, data.eval_results) == ("second", None)


def test_a_head_may_have_any_fields_and_keeps_no_figures() -> None:
    head = "eval_results: [1]\nmodel-index: 1\nmodel_name: y\n1: x\nself: z\ntags: 5\nmine: w"
    text = card(f"---\n{head}\n---\n# Odd\n", "me/odd", {"val_bpb": float("nan")}, curve=False)
    found = yaml.safe_load(text.split("---\n")[1])
    assert found == {"model_name": "odd", "tags": 5, "self": "z", "mine": "w", "language": "code",
                     "license": "mit", "pipeline_tag": "text-generation",
                     "library_name": "p-transformer"}  # fmt: skip


@pytest.mark.parametrize("head", ["[", "? [a\n: b", "date: 2024-13-45", "[" * 5_000])
def test_a_head_that_is_no_yaml_is_a_sentence(head: str) -> None:
    with pytest.raises(UserError, match=r"README\.md does not begin with readable YAML"):
        card(f"---\n{head}\n---\n# Odd\n", "me/odd", {}, curve=False)


def test_a_card_in_another_encoding_is_a_sentence(copied: Path, staged: Path) -> None:
    (copied / "README.md").write_bytes("# café".encode("latin-1"))
    with pytest.raises(UserError, match=r"README\.md is not UTF-8: save it"):
        stage(copied, staged, "me/cafe")


def test_what_is_no_number_is_not_in_the_curve(copied: Path, staged: Path) -> None:
    odd = [float("nan"), float("inf"), None, "2", [1], True]
    records = [{"elapsed": 60, name: value} for name in ("bpb", "val_bpb") for value in odd]
    records += [{"elapsed": value, "val_bpb": 2.5} for value in odd]
    assert curves([*records, {"val_bpb": 1.5}]) == ([], [(0, 1.5)])
    lines = (json.dumps(record) + "\n" for record in records)
    (copied / "metrics.jsonl").write_text("".join(lines))
    (copied / "README.md").unlink()
    stage(copied, staged, "me/odd")
    assert not (staged / "curve.png").exists()
    assert "as logged in training" not in (staged / "README.md").read_text()


def test_the_picture_says_whose_figure_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pushed may be a mean of weights, which measures otherwise."""
    words: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda *args, **_: words.append(args[2]))
    draw([{"val_bpb": 1.5, "elapsed": 60}, {"val_bpb": 1.25, "elapsed": 120}])
    assert "validation windows, last logged: 1.250" in words


@pytest.mark.parametrize("info", ["x", ["x"], None])
def test_facts_of_another_form_are_left_out(copied: Path, staged: Path, info: object) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"info": info}))
    (copied / "README.md").unlink()
    stage(copied, staged, "me/odd")
    assert ModelCard((staged / "README.md").read_text()).data.eval_results is None


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


def test_a_checkpoint_has_the_figures_of_its_own_step(
    copied: Path, staged: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (copied / "README.md").unlink()
    earlier = run / "checkpoints" / "step_000002"
    earlier.parent.mkdir(parents=True)
    copied.rename(earlier)
    (earlier / "metrics.jsonl").rename(run / "metrics.jsonl")
    with open(run / "metrics.jsonl", "a") as log:
        log.write('{"step":null,"val_bpb":1}\n')
    stage(earlier, staged, "me/earlier")
    lines = (staged / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 2]
    text = (staged / "README.md").read_text()
    assert "as logged in training | 4.1" in text


def test_a_folder_called_checkpoints_is_no_run(copied: Path, staged: Path, tmp_path: Path) -> None:
    model = tmp_path / "checkpoints" / "plain"
    model.parent.mkdir()
    copied.rename(model)
    (model / "metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    stage(model, staged, "me/plain")
    assert not (staged / "metrics.jsonl").exists()


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
