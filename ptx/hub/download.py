"""A model of the Hub as a local model directory: downloaded once, cached, whole or not at all."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from ptx.atomic import atomic_directory
from ptx.checkpoint import CONFIG, OURS, WEIGHTS, find_model, require_replaceable
from ptx.errors import UserError
from ptx.hub.answers import explained
from ptx.hub.from_transformers import CONTEXT, FILES, import_model, is_transformers, no_safetensors

WANTED = sorted({*OURS, *FILES})
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def hub_model(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    context: int = CONTEXT,
    max_bytes: int | None = None,
) -> Path:
    """The local model directory of a model on the Hub; `ptx.load_model` opens it.

    The second time nothing is downloaded but what changed, and without a network the newest
    downloaded commit is opened. A checkpoint of transformers is converted once, beside its files in
    huggingface_hub's cache.

    name: `user/name`; never a path, so that it may come from anyone.
    revision, token, cache_dir, local_files_only, force_download: as in huggingface_hub.
    context: tokens that a converted model sees at most.
    max_bytes: a larger download is refused before it begins.
    Raises UserError for a name that the Hub does not have or does not show, for a model of another
    shape, for weights in pickle, and when the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HTTPError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    if not NAME.fullmatch(name) or ".." in name:
        raise UserError(f"{name!r} is no name of the Hub: write it as user/name")
    refusal: Exception | None = None
    with explained(name):
        if not local_files_only:
            try:
                found = HfApi(token=token).model_info(name, revision=revision, files_metadata=True)
                sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
                check_files(name, sizes, max_bytes)
            except (HTTPError, OfflineModeIsEnabled) as error:
                refusal = error  # what could not be checked may still be in the cache
        try:
            snapshot = Path(
                snapshot_download(
                    name,
                    revision=revision,
                    token=token,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only or refusal is not None,
                    force_download=force_download,
                    allow_patterns=WANTED,
                )
            )
        except IncompleteSnapshotError:  # says what is there
            raise
        except LocalEntryNotFoundError as error:
            raise refusal or error from None
    if not is_transformers(snapshot):
        return find_model(snapshot)
    return _converted(name, snapshot, context)


def check_files(name: str, sizes: dict[str, int], max_bytes: int | None) -> None:
    """Refuses a repository that cannot be opened, or is too large, before its download."""
    if CONFIG not in sizes:
        raise UserError(f"{name} has no {CONFIG}: it holds no model that can be opened here")
    if not any(path.endswith(".safetensors") and "/" not in path for path in sizes):
        raise no_safetensors(name, [path for path in sizes if "/" not in path])
    size = sum(n for path, n in sizes.items() if any(fnmatch(path, p) for p in WANTED))
    if max_bytes is not None and size > max_bytes:
        raise UserError(
            f"{name} is {size / 1e6:,.0f} MB, and at most {max_bytes / 1e6:,.0f} MB may be "
            "downloaded here: choose a smaller model"
        )


def _converted(name: str, snapshot: Path, context: int) -> Path:
    from filelock import FileLock

    # in the model's own folder of the cache, so that deleting it there deletes this too
    target = snapshot.parent.parent / "p-transformer" / f"{snapshot.name}-{context}"
    target.parent.mkdir(exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / WEIGHTS).is_file():
            info = {"imported_from": name, "revision": snapshot.name}
            import_model(snapshot, target, context, info)
    return target


def local_model(name: str | Path, **options: object) -> Path:
    """The model directory that a person means: a local one (or a run, as `load_model` takes it) if
    there is any, otherwise a model of the Hub. options: those of `hub_model`."""
    if Path(name).exists() or Path(name).is_absolute():
        return find_model(name)
    with suppress(UserError):
        return find_model(name)  # `runs/nano/latest` is no path, and yet a model
    if not NAME.fullmatch(str(name)):
        return find_model(name)
    try:
        return hub_model(str(name), **options)  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"{name} is no local directory, and of the Hub: {error}") from None


def pull(name: str, out: Path, revision: str | None = None, context: int = CONTEXT) -> Path:
    """Copies a model of the Hub to `out`, a model directory of its own."""
    require_replaceable(out)
    source = hub_model(name, revision=revision, context=context)
    with atomic_directory(out) as target:
        for path in source.iterdir():
            if path.name in OURS:
                shutil.copyfile(path, target / path.name)
    return out
