"""Token files and their manifest: write, open, verify, draw batches.

A data directory holds `train.bin`, `val.bin` and perhaps `test.bin` (raw little-endian uint16 or
uint32, the layout of nanoGPT), `tokenizer.tiktoken`, and `manifest.json`, which says what they are
and where they came from. Files that differ from their manifest are refused by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np

from ptx.atomic import beside, flush, held, put_in_place, recover
from ptx.errors import FULL_DISK, UserError
from ptx.tokenizer import MANIFEST_FILE, RANKS_FILE, Tokenizer

FORMAT = 1
SPLITS = ("train", "val", "test")
REQUIRED = SPLITS[:2]
DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
COUNTS = ("files", "bytes", "tokens")
SOURCE = {"name": str, "version": str, "licence": str, **dict.fromkeys(COUNTS, int)}
CHUNK = 1 << 20  # tokens or bytes looked at together when a whole file is read


class Corpus:
    """A data directory, opened and checked.

    Attributes:
        manifest: what `manifest.json` says.
        tokenizer: the tokenizer that wrote the files.
        splits: the sides that it has: train, val, perhaps test.
        train, val: token ids, memory-mapped, (N,) uint16 or uint32; and `test`, if there is one.

    Raises UserError, naming the file, if anything is missing or differs from the manifest. Several
    threads may read it, but no process that forked from this one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.splits = splits_of(self.manifest)
        for split in self.splits:
            if problem := file_problem(self.path, self.manifest, split):
                raise UserError(f"{problem} Prepare the directory again.")
        self.tokenizer = Tokenizer.load(self.path, self.manifest["tokenizer"])
        for split in self.splits:
            setattr(self, split, open_tokens(self.path, self.manifest, split))
        # opened once: the same text, whatever the directory is replaced with later
        self._train_file, self._reading = (self.path / "train.bin").open("rb"), Lock()
        weakref.finalize(self, self._train_file.close)

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens of the training text from `start` on, (count,). Read, not mapped: pages of a
        mapping would pile up in this process's memory."""
        dtype = self.train.dtype
        with self._reading:
            self._train_file.seek(start * dtype.itemsize)
            return np.fromfile(self._train_file, dtype, count)

    def batch(
        self, step: int, batch_size: int, context: int, seed: int, rows: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a training step, int64 (B, T) each; a function of its arguments.

        The text is cut into windows, which are drawn without replacement; each epoch shuffles them
        anew and starts cutting at another token, so no boundary is the same for ever.

        rows: the part of the batch that is wanted; one of many processes takes its own.
        """
        # Leaves room for the largest phase, so that every epoch has the same number of windows.
        windows = len(self.train) // context - 1
        if windows < 1:
            raise UserError(
                f"{self.path / 'train.bin'} holds {len(self.train):,} tokens, fewer than two "
                f"windows of {context}: prepare more text, or train a preset with a shorter "
                "context (nano: 128)."
            )
        first = step * batch_size
        starts = [
            window_start(seed, *divmod(index, windows), windows, context)
            for index in range(first, first + batch_size)[rows]
        ]
        return inputs_and_targets(np.stack([self.read(start, context + 1) for start in starts]))

    def val_windows(self, context: int, n_windows: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, int64 (W, T) each: evenly spaced windows, always the same ones.

        W is `n_windows`, or as many as the validation text holds without overlap.
        """
        last = len(self.val) - context - 1  # the start of the last window
        if last < 0:
            raise UserError(
                f"{self.path / 'val.bin'} holds {len(self.val):,} tokens, fewer than one window "
                f"of {context}: prepare more text, or train a preset with a shorter context "
                "(nano: 128)."
            )
        count = min(n_windows, last // context + 1)
        starts = np.linspace(0, last, count).astype(np.int64)
        return inputs_and_targets(self.val[starts[:, None] + np.arange(context + 1)])


def inputs_and_targets(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, T + 1) tokens -> int64 (N, T) each, the second one token ahead."""
    windows = windows.astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def window_start(seed: int, epoch: int, index: int, windows: int, context: int) -> int:
    """Where the `index`-th window of an epoch starts."""
    phase, order = shuffled(seed, epoch, windows, context)
    return phase + int(order[index]) * context


@lru_cache(maxsize=2)  # a batch touches at most the end of one epoch and the start of the next
def shuffled(seed: int, epoch: int, windows: int, context: int) -> tuple[int, np.ndarray]:
    """An epoch's first token, and its order of windows."""
    generator = np.random.default_rng([seed, epoch])
    return int(generator.integers(context)), generator.permutation(windows)


# --- reading and checking


def read_manifest(path: Path) -> dict:
    """The manifest of a data directory, with every field that opening it needs."""
    if not path.is_dir():
        raise UserError(
            f"There is no data directory {path}: make it with "
            f"`python prepare/run.py installed --out {path}`."
        )
    file = path / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: prepare the directory again, or describe token files made "
            "elsewhere with `prepare/run.py adopt`."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not readable JSON ({error}): prepare it again.") from None
    if not is_manifest(manifest):
        raise UserError(f"{file} is not a manifest of format {FORMAT}: prepare it again.")
    return manifest


def is_manifest(manifest: object) -> bool:
    """Whether the fields that opening a directory relies on are there, with their types."""
    try:
        return (
            manifest["format"] == FORMAT
            and manifest["dtype"] in DTYPES
            and isinstance(manifest["tokenizer"], dict)
            and isinstance(manifest.get("split", {}), dict)
            and isinstance(manifest.get("extras", {}), dict)
            and set(REQUIRED) <= set(manifest["splits"]) <= set(SPLITS)
            and all(split["tokens"] > 0 for split in manifest["splits"].values())
            and all(isinstance(s[n], int) for s in manifest["splits"].values() for n in COUNTS)
            and all(isinstance(split["sha256"], str) for split in manifest["splits"].values())
        )
    except (AttributeError, KeyError, TypeError):
        return False


def splits_of(manifest: dict) -> tuple[str, ...]:
    """The sides that a manifest lists, in the order of SPLITS."""
    return tuple(split for split in SPLITS if split in manifest["splits"])


def sources_of(path: Path, manifest: dict, split: str) -> list[dict]:
    """The projects of one side, each with the fields of SOURCE."""
    try:
        sources = manifest["sources"][split]
        complete = all(isinstance(s[key], kind) for s in sources for key, kind in SOURCE.items())
    except (KeyError, TypeError):
        complete = False
    if not complete:
        raise UserError(
            f"{path / MANIFEST_FILE} does not list the sources of {split}.bin with their "
            f"{', '.join(SOURCE)}: prepare the directory again."
        )
    return sources


def file_problem(path: Path, manifest: dict, split: str) -> str | None:
    """What is wrong with the file of one split, as a sentence, or None."""
    file = path / f"{split}.bin"
    if not file.is_file():
        return f"{file} is missing."
    recorded = manifest["splits"]
    size, expected = file.stat().st_size, recorded[split]["tokens"] * itemsize(manifest)
    digest = file_sha256(file)
    differs = digest != recorded[split]["sha256"]
    for other in splits_of(manifest):
        if differs and digest == recorded[other]["sha256"]:
            return f"{file} holds the {other} split: the files are swapped."
    if size != expected:
        return f"{file} is {size:,} bytes, but its manifest says {expected:,}."
    if differs:
        return f"{file} is not the file of its manifest (its sha256 differs)."
    return None


def itemsize(manifest: dict) -> int:
    return DTYPES[manifest["dtype"]].itemsize


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def open_tokens(path: Path, manifest: dict, split: str) -> np.memmap:
    """The tokens of one split, (N,), read from disk as they are used."""
    return np.memmap(path / f"{split}.bin", dtype=DTYPES[manifest["dtype"]], mode="r")


def count_tokens(tokens: np.ndarray, n_vocab: int) -> np.ndarray:
    """How often each id occurs, int64 (n_vocab,), in bounded memory.

    Raises UserError for an id outside the vocabulary.
    """
    counts = np.zeros(n_vocab, dtype=np.int64)
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        if (largest := int(chunk.max())) >= n_vocab:
            raise UserError(f"it holds the id {largest:,}, outside a vocabulary of {n_vocab:,}")
        counts += np.bincount(chunk, minlength=n_vocab)
    return counts


def verify(path: str | Path) -> list[str]:
    """Read everything again; every problem as a sentence that names its file. [] if all is well.

    Beyond what opening checks: ids inside the vocabulary, and files, bytes and tokens of every
    project, recounted from the tokens themselves.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
        tokenizer = Tokenizer.load(path, manifest["tokenizer"])
    except UserError as error:
        return [str(error)]
    problems = []
    for split in splits_of(manifest):
        if problem := file_problem(path, manifest, split):
            problems.append(problem)
        else:
            problems += recount(path, manifest, split, tokenizer)
    return [*problems, *extra_problems(path, manifest)]


def extra_problems(path: Path, manifest: dict) -> Iterator[str]:
    """Problems of the further files that a manifest lists."""
    for name, digest in manifest.get("extras", {}).items():
        file = path / Path(name).name  # never outside the directory
        if not file.is_file():
            yield f"{file} is missing."
        elif file_sha256(file) != digest:
            yield f"{file} is not the file of its manifest (its sha256 differs)."


def recount(path: Path, manifest: dict, split: str, tokenizer: Tokenizer) -> Iterator[str]:
    """Problems between the tokens of one split and what the manifest says of its projects."""
    file, listing = path / f"{split}.bin", path / MANIFEST_FILE
    tokens = open_tokens(path, manifest, split)
    try:
        sources = sources_of(path, manifest, split)
    except UserError as error:
        yield str(error)
        return
    for key, total in (("tokens", len(tokens)), ("bytes", manifest["splits"][split]["bytes"])):
        if sum(source[key] for source in sources) != total:
            yield f"{listing}: the {key} of the projects in {split} do not sum to {total:,}."
    start = 0
    for source in sources:
        span = tokens[start : start + source["tokens"]]
        start += source["tokens"]
        try:
            counts = count_tokens(span, tokenizer.n_vocab)
        except UserError:
            yield f"{file}: {source['name']} has ids outside {tokenizer.name}'s vocabulary."
            continue
        found = {"files": counts[tokenizer.eot], "bytes": counts @ tokenizer.byte_lengths}
        for key, value in found.items():
            if value != source[key]:
                yield (
                    f"{file}: {source['name']} has {value:,} {key}, but {MANIFEST_FILE} says "
                    f"{source[key]:,}."
                )


# --- writing


def dtype_for(tokenizer: Tokenizer) -> str:
    """The name of the smallest type that holds every id."""
    return "uint16" if tokenizer.n_vocab <= 1 << 16 else "uint32"


class CorpusWriter:
    """Writes a data directory beside its target and puts it in place when it is complete.

    Use as a context manager: leaving it without `finish` throws the unfinished directory away, and
    whatever was at the target stays. A killed process leaves a `.NAME.partial-PID` directory,
    which the next writer for the same target removes.
    """

    def __init__(
        self, target: str | Path, tokenizer: Tokenizer, splits: tuple[str, ...] = REQUIRED
    ) -> None:
        self.target = Path(target).resolve()
        self.tokenizer, self.splits = tokenizer, splits
        self.dtype = dtype_for(tokenizer)
        require_replaceable(self.target)

    def __enter__(self) -> CorpusWriter:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        recover(self.target)
        self._partial = beside(self.target, "partial")
        self._partial.mkdir()
        self._files = {split: (self._partial / f"{split}.bin").open("wb") for split in self.splits}
        self._hashes = {split: hashlib.sha256() for split in self.splits}
        return self

    def extra(self, name: str) -> Path:
        """Where to write a further file of the directory; the manifest will hold its sha256."""
        return self._partial / name

    def write(self, split: str, tokens: np.ndarray | list[int]) -> None:
        """Append tokens, (n,), to the file of one side."""
        data = np.asarray(tokens, dtype=DTYPES[self.dtype]).tobytes()
        self._files[split].write(data)
        self._hashes[split].update(data)

    def finish(self, sources: dict[str, list[dict]], **provenance: object) -> dict:
        """Complete the directory and put it in place. Returns its manifest.

        Args:
            sources: for each side, the projects in the order of their tokens: name,
                version, licence, files, bytes, tokens. Every file ends with one end-of-text token.
            provenance: further fields of the manifest: split rule, filters, command.
        """
        for split in self.splits:
            if not self._files[split].tell():
                raise UserError(f"No text is left for {split}.bin after cleaning: add projects.")
            self._files[split].close()
            flush(self._partial / f"{split}.bin")
        extras = sorted(set(os.listdir(self._partial)) - {f"{split}.bin" for split in self.splits})
        for name in extras:
            flush(self._partial / name)
        self.tokenizer.save(self._partial)
        manifest = {
            "format": FORMAT,
            "dtype": self.dtype,
            "tokenizer": self.tokenizer.record(),
            "splits": {split: self._totals(split, sources[split]) for split in self.splits},
            "extras": {name: file_sha256(self._partial / name) for name in extras},
            **provenance,
            "sources": sources,
        }
        write_json(self._partial / MANIFEST_FILE, manifest)
        put_in_place(self._partial, self.target)
        return manifest

    def _totals(self, split: str, sources: list[dict]) -> dict[str, str | int]:
        sums = {key: sum(s[key] for s in sources) for key in COUNTS}
        return {"file": f"{split}.bin", **sums, "sha256": self._hashes[split].hexdigest()}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # after a full disk: what is not written yet fails once more
                file.close()
        shutil.rmtree(self._partial, ignore_errors=True)  # nothing is there after `finish`
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise UserError(
                f"{self.target.parent} is full: make room and run the same command again."
            ) from None


def adopt(path: str | Path, dtype: str, tokenizer: Tokenizer) -> dict:
    """Write the manifest of a bare directory of token files, as nanoGPT leaves them.

    Only what the tokens themselves show can be recorded: no projects, versions or licences.
    """
    path = Path(path)
    if dtype not in DTYPES:
        raise UserError(f"Unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}.")
    if (path / MANIFEST_FILE).exists():
        raise UserError(f"{path} has a manifest already: check it with `prepare/run.py verify`.")
    splits, sources = {}, {}
    for split in REQUIRED:
        file = path / f"{split}.bin"
        if not file.is_file() or not file.stat().st_size:
            raise UserError(f"{file} is missing or empty: adopt needs train.bin and val.bin.")
        if file.stat().st_size % DTYPES[dtype].itemsize:
            raise UserError(f"{file} is not a whole number of {dtype}: give the other dtype.")
        tokens = open_tokens(path, {"dtype": dtype}, split)
        try:
            counts = count_tokens(tokens, tokenizer.n_vocab)
        except UserError as error:
            raise UserError(
                f"{file}: {error}: give the tokenizer and dtype that wrote it."
            ) from None
        totals = {
            "files": int(counts[tokenizer.eot]),
            "bytes": int(counts @ tokenizer.byte_lengths),
            "tokens": len(tokens),
        }
        splits[split] = {"file": file.name, **totals, "sha256": file_sha256(file)}
        sources[split] = [{"name": "adopted", "version": "", "licence": "unknown", **totals}]
    tokenizer.save(path)
    manifest = {
        "format": FORMAT,
        "dtype": dtype,
        "tokenizer": tokenizer.record(),
        "splits": splits,
        "split": {"rule": "Unknown: adopted"},
        "sources": sources,
    }
    write_json(path / MANIFEST_FILE, manifest)
    return manifest


def write_json(path: Path, content: dict) -> None:
    """Write the whole file or, if this process is killed, none."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    flush(partial)
    partial.replace(path)


def require_replaceable(target: Path) -> None:
    """Refuse a target that holds anything but an earlier data directory."""
    if target.is_file():
        raise UserError(f"{target} is a file: name a directory to write to.")
    if not (names := {path.name for path in held(target)}):
        return
    try:
        manifest = read_manifest(target)
    except UserError:
        raise UserError(
            f"{target} is not empty and not a data directory: name another, or empty it first."
        ) from None
    written = {MANIFEST_FILE, RANKS_FILE, *(f"{split}.bin" for split in SPLITS)}
    if others := sorted(names - written - set(manifest.get("extras", {}))):
        raise UserError(
            f"{target} holds {others[0]}, which is no part of a data directory and would be "
            "deleted: name another, or move it away."
        )
