"""A model directory to the Hub: the files of a model, a card of its real figures, nothing else."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from ptx.checkpoint import CONFIG, WEIGHTS, find_model, load_model, log_folder, step_of
from ptx.hub.answers import explained
from ptx.hub.card import write_card
from ptx.hub.curve import is_number
from ptx.runlog import METRICS, tail
from ptx.tokenizer import RANKS_FILE


def push(
    directory: str | Path,
    name: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    message: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Uploads a model to `name` (user/name) on the Hub in one commit; returns the commit's address.

    directory: anything `load_model` understands; it is opened first, so that nothing broken is
        pushed.
    private, token, branch, create_pr: as in huggingface_hub's `upload_folder`.
    Raises UserError for a model that cannot be opened, and for what the Hub refuses.
    """
    path = find_model(directory)
    load_model(path)
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        stage(path, staged, name)
        return upload(staged, name, private, token, branch, message, create_pr)


def stage(model: Path, target: Path, name: str) -> None:
    """Puts the files that a model repository holds into `target`, the card among them."""
    for file in (WEIGHTS, CONFIG, RANKS_FILE):
        shutil.copyfile(model / file, target / file)
    copy_log(model, target)
    for words in ("README.md", "samples.md"):
        if (model / words).is_file():
            shutil.copyfile(model / words, target / words)
    write_card(target, name)


def copy_log(model: Path, target: Path) -> None:
    """The log of the model's own training: a checkpoint's run may have gone on without it."""
    folder = log_folder(model)
    if folder == model:
        shutil.copyfile(model / METRICS, target / METRICS)
    elif folder:
        step = step_of(model.resolve())
        records = [r for r in tail(folder / METRICS)[0] if is_number(r.get("step", 0))]
        lines = [json.dumps(r) + "\n" for r in records if r.get("step", 0) <= step]
        (target / METRICS).write_text("".join(lines), "utf-8")


def upload(
    folder: Path,
    name: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    message: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """One commit with all files of `folder`, to a repository that is created if it is not there."""
    from huggingface_hub import HfApi

    with explained(name):
        api = HfApi(token=token)
        repo = api.create_repo(name, private=private, exist_ok=True).repo_id
        if branch:
            api.create_branch(repo, branch=branch, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message or "Upload a P-Transformer",
            revision=branch,
            create_pr=create_pr,
        )
        return str(done)
