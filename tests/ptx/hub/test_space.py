"""The Space: exactly the files it needs, and they run there."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from gradio_client import Client

from ptx.errors import UserError
from ptx.hub import space as spaces
from ptx.hub.__main__ import main
from ptx.hub.space import NEEDED, ROOT, contents, pinned, requirements, space, write
from tests.ptx.hub.stand_in import Fault, Repositories

MODEL = ("README.md", "config.json", "metrics.jsonl", "model.safetensors", "samples.md",
         "tokenizer.tiktoken")  # fmt: skip


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *folders],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def expected(model: str) -> set[str]:
    return (
        {"README.md", "requirements.txt", "app.py", "LICENSE"}
        | tracked("ptx")
        | {f"checkpoints/{model}/{name}" for name in MODEL}
    )


@pytest.fixture
def littered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in use: data, runs, secrets and what editors and Python leave."""
    root = tmp_path / "repository"
    for name in tracked("app.py", "LICENSE", "README.md", "requirements.txt", "ptx"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    for name in (
        ".env", "ptx/.env", "ptx/.netrc", "ptx/token", "ptx/notes.org", "ptx/__pycache__/a.json",
        "ptx/x.pyi", "ptx/lens/a.so", "ptx/playground/.secret.py.swp", "data/d/train.bin",
        "runs/nano/config.json", "train/run.py", "prepare/run.py", "tests/test_x.py",
        "checkpoints/other/model.safetensors", "examples/tour.ipynb",
        "ptx/.ipynb_checkpoints/secret.py", "ptx/notes.txt", "ptx/token.json", "ptx/notes.md",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("not for the Space")
    monkeypatch.setattr(spaces, "ROOT", root)
    return root


def test_exactly_these_files_go(littered: Path, directory: Path) -> None:
    assert set(contents(directory)) == expected("tiny")


def test_what_git_does_not_know_stays_here(littered: Path, directory: Path) -> None:
    for words in (["init", "-q"], ["add", "ptx/lens", "ptx/notes.txt"]):
        subprocess.run(["git", *words], cwd=littered, check=True)
    (littered / "ptx/scratch.py").touch()
    (littered / "ptx/lens/text.py").unlink()
    library = {name for name in contents(directory) if name.startswith("ptx/")}
    gone = {"ptx/lens/text.py"}
    assert library == tracked("ptx/lens") - gone | {"ptx/lens/a.so", "ptx/notes.txt"}


def test_code_that_git_does_not_know_is_told(
    littered: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["space", "me/play", "--model", str(directory), "--dry-run"]
    main(words)
    assert capsys.readouterr().err == ""  # without a repository all of it goes
    (littered / ".gitignore").write_text(".*\n!.gitignore\n")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=littered, check=True)
    main(words)
    assert capsys.readouterr().err == ""
    (littered / "ptx/scratch.py").touch()
    (littered / "ptx/.hidden.py").touch()
    (littered / "ptx/more.txt").touch()
    main(words)
    told = capsys.readouterr()
    assert "git does not track ptx/scratch.py: git add" in told.err
    assert "scratch" not in told.out
    (littered / "ptx/lens/another.js").touch()
    main(words)
    assert "ptx/lens/another.js and 1 more" in capsys.readouterr().err


@pytest.mark.parametrize("info", [None, "x", ["x"]])
def test_facts_of_another_form_are_left_out(copied: Path, info: object) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"info": info}))
    assert "models:" not in str(contents(copied)["README.md"])


def test_one_commit_makes_it_and_one_updates_it(hub: Repositories, directory: Path) -> None:
    address = space("me/play", directory)
    repository = hub.repositories["me/play"]
    assert address == f"{hub.url}/spaces/me/play"
    assert repository.settings["created"]["sdk"] == "gradio"
    assert set(repository.files()) == expected("tiny") | {".gitattributes"}
    assert repository.files()["app.py"] == (ROOT / "app.py").read_bytes()
    stale = {**repository.files(), "ptx/old.py": b"", "checkpoints/other/config.json": b""}
    repository.commit(stale)
    space("me/play", directory)
    assert set(repository.files()) == expected("tiny") | {".gitattributes"}
    assert "secrets" not in repository.settings
    assert "hardware" not in repository.settings


def test_hardware_and_secrets_are_asked_for(hub: Repositories, directory: Path) -> None:
    space("me/play", directory, "zero-a10g", {"HF_TOKEN": "hf_x"}, private=True)
    settings = hub.repositories["me/play"].settings
    assert [(s["key"], s["value"]) for s in settings["secrets"]] == [("HF_TOKEN", "hf_x")]
    assert [s["flavor"] for s in settings["hardware"]] == ["zero-a10g"]
    assert hub.repositories["me/play"].private
    sent = b"".join(hub.repositories["me/play"].files().values())
    assert b"hf_x" not in sent


def test_a_refusal_is_a_sentence(hub: Repositories, directory: Path) -> None:
    hub.faults.append(Fault("POST", "/repos/create", 403))
    with pytest.raises(UserError, match="Your token may not write to me/play"):
        space("me/play", directory)
    hub.faults.append(Fault("POST", "/hardware", 402))
    with pytest.raises(UserError, match="The Hub answered 402 for me/play"):
        space("me/play", directory, "a100-large")


def test_its_head_is_what_a_space_reads(directory: Path) -> None:
    text = contents(directory)["README.md"]
    assert isinstance(text, str)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["sdk"] == "gradio"
    assert head["sdk_version"] == pinned((ROOT / "requirements.txt").read_text())["gradio"]
    assert head["app_file"] == "app.py"
    assert head["python_version"] == "3.12"
    assert "models" not in head
    assert len(head["short_description"]) <= 60
    assert "The model here is `tiny`" in text


def test_it_installs_what_the_page_imports(directory: Path) -> None:
    """Every import outside the standard library is one of the requirements, or Gradio."""
    names = {"pillow": "PIL"}
    installed = {names.get(name, name) for name in NEEDED} | {
        "torch", "gradio", "spaces",  # the Space has them
        "yaml", "llvmlite", "tiktoken_ext",  # gradio, numba and tiktoken bring them
        "toktok",  # only preparing data calls it (Tokenizer.encode_array)
    }  # fmt: skip
    for name, path in contents(directory).items():
        if not name.endswith(".py"):
            continue
        assert isinstance(path, Path)
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for top in (module.partition(".")[0] for module in modules):
                known = sys.stdlib_module_names | {"ptx"} | installed
                assert top in known, f"{name} imports {top}"


def test_requirements_are_the_repositorys_with_a_torch_that_zerogpu_has() -> None:
    text = requirements((ROOT / "requirements.txt").read_text())
    assert text.startswith("torch==2.11.0\nnumpy==")
    assert "datasets" not in text
    with pytest.raises(UserError, match="does not pin numpy"):
        requirements("torch==2.13.0\n")


def test_it_runs_on_the_oldest_python_there(directory: Path) -> None:
    """ZeroGPU offers 3.10. `tests/oldest` runs the tests themselves on it."""
    files = [str(path) for name, path in contents(directory).items() if name.endswith(".py")]
    vermin = Path(sys.executable).with_name("vermin")
    done = subprocess.run(
        [vermin, "--target=3.10-", "--violations", "--no-tips", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture
def staged(directory: Path, tmp_path: Path) -> Path:
    write(contents(directory), tmp_path / "space")
    return tmp_path / "space"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_starts_and_writes_without_the_network(staged: Path) -> None:
    """As the Space runs it: `python app.py` there, with limits, without training."""
    port = free_port()
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PTX_", "PYTHON"))
    }
    environment |= {
        "SYSTEM": "spaces",
        "SPACE_ID": "me/play",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=staged, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        config = _wait_for(f"http://127.0.0.1:{port}/config", process)
        assert config["title"] == "P-Transformer"
        text = json.dumps(config)
        assert "tiny" in text
        assert config["space_id"] == "me/play"
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        assert client.predict("def f(x", length=5, api_name="/generate")
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: str, process: subprocess.Popen[str], seconds: float = 90) -> dict[str, object]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            with opener.open(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the page did not start")
