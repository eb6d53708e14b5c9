"""A Space: the playground with one model, as files for the Hub's free machines."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from string import Template
from typing import Any

from ptx.checkpoint import OURS, find_model, load_model, read_config
from ptx.errors import UserError
from ptx.hub.answers import explained

ROOT = Path(__file__).resolve().parents[2]
"""The repository, which a Space is made from."""
CODE = {".py", ".js", ".css", ".html"}
DATA = {"py16k.json", "py16k.tiktoken", "card.md", "space.md", "reference.txt"}
"""The library's files where git does not list them: these endings, and these names."""
NEEDED = (
    "numpy", "tiktoken", "regex", "numba", "safetensors", "huggingface_hub", "filelock", "tyro",
    "pillow",
)  # fmt: skip
"""What the page imports, in the versions of requirements.txt; the Space brings Gradio itself."""
TORCH = "2.11.0"
"""The newest that ZeroGPU has. The code runs on 2.8 too, the oldest there."""
PYTHON = "3.12"
"""The newer one of ZeroGPU's; 3.10 is the other."""
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
TEMPLATE = Path(__file__).with_name("space.md")


def space(
    name: str,
    model: str | Path,
    hardware: str | None = None,
    secrets: dict[str, str] | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
) -> str:
    """Creates or updates the Space `name` (user/name) and returns its address.

    One commit: what `contents` lists comes or changes, whatever else was there goes.
    hardware: asked for once the files are there; None leaves it as it is.
    secrets: set before, so that the first start has them.
    Raises UserError for a model that cannot be opened, and for what the Hub refuses.
    """
    from huggingface_hub import HfApi

    files = contents(model)
    load_model(model)
    with explained(name, "space"), tempfile.TemporaryDirectory() as folder:
        write(files, Path(folder))
        api = HfApi(token=token)
        address = api.create_repo(
            name, repo_type="space", space_sdk="gradio", private=private, exist_ok=True
        )
        for key, value in (secrets or {}).items():
            api.add_space_secret(address.repo_id, key, value)
        api.upload_folder(
            repo_id=address.repo_id,
            repo_type="space",
            folder_path=folder,
            commit_message="Update the playground",
            delete_patterns="*",
        )
        if hardware:
            api.request_space_hardware(address.repo_id, hardware)  # type: ignore[arg-type]
        return str(address)


def contents(model: str | Path) -> dict[str, Path | str]:
    """{path in the Space: file here, or text}: everything that is uploaded."""
    directory = find_model(model)
    at = f"checkpoints/{directory.resolve().name}"
    return {
        "README.md": readme(directory),
        "requirements.txt": requirements((ROOT / "requirements.txt").read_text("utf-8")),
        "app.py": ROOT / "app.py",
        "LICENSE": ROOT / "LICENSE",
        **{name: ROOT / name for name in library()},
        **{f"{at}/{name}": directory / name for name in OURS if (directory / name).is_file()},
    }


def library() -> list[str]:
    """The library's files, as paths from the repository: never what merely lies among them."""
    names = tracked() or [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "ptx").rglob("*"))
        if path.suffix in CODE or path.name in DATA
    ]
    visible = (name for name in names if not re.search(r"(^|/)\.", name))
    return [name for name in visible if (ROOT / name).is_file()]


def tracked() -> list[str]:
    """The files of the library that git knows; none where there is no git, or no repository."""
    return _listed()


def left_here() -> list[str]:
    """Code in the library that does not go, as git knows the others, and does not ignore it."""
    others = _listed("--others", "--exclude-standard") if tracked() else []
    return [name for name in others if Path(name).suffix in CODE]


def _listed(*which: str) -> list[str]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", *which, "ptx"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [name for name in os.fsdecode(listed.stdout).split("\0") if name]


def write(files: dict[str, Path | str], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content.read_bytes())


def pinned(text: str) -> dict[str, str]:
    """{package: version} of a requirements file."""
    return dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))


def requirements(text: str) -> str:
    """What a Space installs, from the repository's requirements."""
    versions = pinned(text)
    if missing := [name for name in NEEDED if name not in versions]:
        raise UserError(f"requirements.txt does not pin {missing[0]}, which the page imports")
    return f"torch=={TORCH}\n" + "".join(f"{name}=={versions[name]}\n" for name in NEEDED)


def readme(directory: Path) -> str:
    """The Space's head, from that of the repository's README, and a few words below it."""
    import yaml

    text = (ROOT / "README.md").read_text("utf-8")
    match = FRONT_MATTER.match(text)
    assert match, "README.md begins with the head of a Space"
    head: dict[str, Any] = yaml.safe_load(match[1])
    head["sdk_version"] = pinned((ROOT / "requirements.txt").read_text("utf-8"))["gradio"]
    head["python_version"] = PYTHON
    head.pop("models", None)
    if origin := read_config(directory)["info"].get("imported_from"):
        head["models"] = [origin]
    words = Template(TEMPLATE.read_text("utf-8")).substitute(model=directory.resolve().name)
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n{words}"
