"""Pull: a name of the Hub becomes a model directory, whole, cached, or a sentence says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import ptx
from ptx.errors import UserError
from ptx.hub.download import hub_model, local_model, pull
from ptx.model import GPT
from tests.ptx.hub.conftest import files
from tests.ptx.hub.stand_in import Fault, Repositories
from tests.ptx.hub.test_from_transformers import saved, scrambled, trained


@pytest.fixture
def tiny(hub: Repositories, directory: Path) -> Repositories:
    sent = {name: content for name, content in files(directory).items() if name != ".env"}
    hub.add("me/tiny", sent | {"optimizer.bin": b"large"})
    return hub


def downloads(hub: Repositories) -> list[str]:
    return [c.rpartition("/")[2] for c in hub.calls if c.startswith("GET") and "/resolve/" in c]


def test_a_model_is_downloaded_once(tiny: Repositories, directory: Path) -> None:
    found = hub_model("me/tiny")
    model, _, info = ptx.load_model(found)
    assert info["val_bpb"] == 3.25
    expected = ptx.load_model(directory)[0]
    assert torch.equal(model.tok_emb.weight, expected.tok_emb.weight)
    wanted = {"config.json", "model.safetensors", "tokenizer.tiktoken", "README.md",
              "metrics.jsonl", "samples.md"}  # fmt: skip
    assert set(downloads(tiny)) == wanted
    assert hub_model("me/tiny") == found
    assert len(downloads(tiny)) == len(wanted)


def test_a_new_commit_is_fetched_and_an_old_one_can_be_named(
    tiny: Repositories, directory: Path
) -> None:
    first = hub_model("me/tiny")
    repository = tiny.repositories["me/tiny"]
    old = repository.branches["main"]
    repository.commit({**repository.files(), "README.md": b"# new"})
    assert (hub_model("me/tiny") / "README.md").read_text() == "# new"
    assert hub_model("me/tiny", revision=old) == first
    with pytest.raises(UserError, match="no such model, commit or file"):
        hub_model("me/tiny", revision="nothing")


def test_without_a_network_the_newest_download_opens(
    tiny: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hub_model("me/tiny")
    asked = len(tiny.calls)
    assert hub_model("me/tiny", local_files_only=True) == found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_model("me/tiny") == found
    assert len(tiny.calls) == asked
    with pytest.raises(UserError, match="not in the cache, and the Hub cannot be reached"):
        hub_model("me/other")


def test_a_lost_network_is_a_sentence(hub: Repositories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="is the network up"):
        hub_model("me/tiny")


def test_a_cut_off_body_is_continued(tiny: Repositories, directory: Path) -> None:
    tiny.truncated = 2
    found = hub_model("me/tiny")
    for name in ("model.safetensors", "tokenizer.tiktoken"):
        assert (found / name).read_bytes() == (directory / name).read_bytes()
    assert len(downloads(tiny)) > 5


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("GET", "/api/models/", 401, "RepoNotFound", 9), r"does not show me/tiny .*\(401\)"),
        (
            Fault("GET", "/api/models/", 403, "GatedRepo", 9),
            "is gated: accept its licence at .*me/",
        ),
        (Fault("GET", "/api/models/", 403, "", 9), "Your token may not read me/tiny"),
        (Fault("GET", "/api/models/", 404, "RepoNotFound", 9), "no such model"),
        (Fault("GET", "/api/models/", 429, "", 99), "asks for a pause"),
        (Fault("GET", "/api/models/", 500, "", 99), "The Hub answered 500"),
        (Fault("HEAD", "/resolve/", 403, "GatedRepo", 99), "is gated: accept its licence"),
    ],
)
def test_a_refusal_is_a_sentence(
    tiny: Repositories, fault: Fault, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    tiny.faults.append(fault)
    with pytest.raises(UserError, match=sentence):
        hub_model("me/tiny")


def test_what_was_downloaded_opens_though_the_hub_refuses_now(tiny: Repositories) -> None:
    found = hub_model("me/tiny")
    tiny.faults.append(Fault("GET", "/api/models/", 401, "RepoNotFound", 9))
    assert hub_model("me/tiny") == found


def test_a_private_model_needs_the_token(
    tiny: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.repositories["me/tiny"].private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="log in"):
        hub_model("me/tiny")
    with pytest.raises(UserError, match="log in"):
        hub_model("me/tiny", token="hf_wrong")
    assert hub_model("me/tiny", token=tiny.token)


@pytest.mark.parametrize(
    "name", ["", "../secrets", "/etc/passwd", "me/..", "a/b/c", "me/ti ny", "me/tiny?x", "~/x"]
)
def test_a_name_is_never_a_path(hub: Repositories, name: str) -> None:
    with pytest.raises(UserError, match="is no name of the Hub"):
        hub_model(name)
    assert hub.calls == []


def test_what_cannot_be_opened_is_refused_before_its_download(hub: Repositories) -> None:
    hub.add("me/pickle", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(UserError, match=r"pickle \(pytorch_model.bin\): opening such a file can"):
        hub_model("me/pickle")
    hub.add("me/data", {"data.csv": b""})
    with pytest.raises(UserError, match=r"me/data has no config\.json"):
        hub_model("me/data")
    hub.add("me/large", {"config.json": b"{}", "model.safetensors": b"x" * 3_000_000})
    with pytest.raises(UserError, match="me/large is 3 MB, and at most 2 MB"):
        hub_model("me/large", max_bytes=2_000_000)
    assert downloads(hub) == []


def test_what_could_not_be_checked_is_not_downloaded(
    tiny: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    once = Fault("GET", "/api/models/me/tiny$", 418)
    tiny.faults.append(once)
    with pytest.raises(UserError, match="The Hub answered 418 for me/tiny"):
        hub_model("me/tiny", max_bytes=10)
    assert downloads(tiny) == []
    found = hub_model("me/tiny")
    once.times = 1
    assert hub_model("me/tiny", max_bytes=10) == found


@pytest.fixture
def theirs(hub: Repositories, tmp_path: Path) -> Repositories:
    hub.add("them/gpt2", files(saved(tmp_path / "theirs", scrambled("gpt2"), trained())))
    return hub


def test_a_checkpoint_of_transformers_is_converted_once(
    theirs: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = hub_model("them/gpt2")
    model, _, info = ptx.load_model(found)
    assert info["imported_from"] == "them/gpt2"
    assert info["revision"] == theirs.repositories["them/gpt2"].branches["main"]
    written = (found / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_model("them/gpt2") == found
    assert (found / "model.safetensors").stat().st_mtime_ns == written
    assert GPT.from_pretrained("them/gpt2").config == model.config
    assert hub_model("them/gpt2", context=16) != found


def test_a_conversion_that_fails_leaves_nothing(theirs: Repositories, tmp_path: Path) -> None:
    repository = theirs.repositories["them/gpt2"]
    config = json.loads(repository.files()["config.json"])
    config["activation_function"] = "gelu"
    repository.commit({**repository.files(), "config.json": json.dumps(config).encode()})
    with pytest.raises(UserError, match="activation_function is 'gelu'"):
        hub_model("them/gpt2")
    assert list((tmp_path / "cache").rglob("p-transformer/*/config.json")) == []


def test_a_local_model_goes_before_the_hub(
    tiny: Repositories, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    assert local_model("tiny") == Path("tiny")
    assert tiny.calls == []
    assert local_model("me/tiny") == hub_model("me/tiny")
    with pytest.raises(
        UserError, match="runs/nanoo is no local directory, and of the Hub: The Hub"
    ):
        local_model("runs/nanoo")
    with pytest.raises(UserError, match="there is no model at /nowhere/x"):
        local_model("/nowhere/x")


def test_pull_writes_a_directory_of_its_own(
    tiny: Repositories, theirs: Repositories, directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pulled"
    pull("me/tiny", out)
    assert not any(path.is_symlink() for path in out.iterdir())
    assert {p.name for p in out.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.tiktoken", "README.md", "metrics.jsonl",
        "samples.md",
    }  # fmt: skip
    pull("them/gpt2", out)  # an earlier model is replaced
    assert ptx.load_model(out)[2]["imported_from"] == "them/gpt2"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not empty and not a model directory"):
        pull("me/tiny", tmp_path / "full")
