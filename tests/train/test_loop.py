"""Runs: what they write, and that stopping and resuming changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ptx import runlog
from ptx.atomic import discard
from ptx.checkpoint import checkpoints, load_model
from ptx.corpus import Corpus, CorpusWriter
from ptx.errors import UserError
from tests.train.conftest import assert_equal_ends
from train import rundir
from train import settings as run_settings
from train.loop import Run, train
from train.parallel import World
from train.settings import Settings, largest_part, resumed


def settings(data: Path, runs: Path, /, **changes: Any) -> Settings:
    base = Settings(
        preset="tiny", data=data, runs=runs, val_every=5, val_windows=4, sample_every=6,
        save_every=6, device="cpu", precision="fp32", attention="fused", compile="off",
    )  # fmt: skip
    return replace(base, **changes)


def without_clocks(path: Path) -> list[dict]:
    return [
        {
            k: v
            for k, v in record.items()
            if k not in ("elapsed", "cpu_seconds", "tokens_per_s", "mfu", "memory_gib")
        }
        for record in runlog.tail(path)[0]
    ]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    data: Path, tmp_path: Path, optimizer: str
) -> None:
    whole = train(settings(data, tmp_path, name="whole", optimizer=optimizer))
    part = Run.start(settings(data, tmp_path, name="parts", optimizer=optimizer))
    for _ in range(7):  # one past the last checkpoint: that step is lost and done again
        part.step()
    part.close()
    torch.manual_seed(999)  # the resumed process would start with another generator
    parts = train(Settings(resume=part.directory))
    for file in ("model.safetensors", "optimizer.safetensors"):
        a = load_file(checkpoints(whole)[-1] / file)
        b = load_file(checkpoints(parts)[-1] / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    for log in (runlog.METRICS, runlog.SAMPLES):
        assert without_clocks(whole / log) == without_clocks(parts / log)


def test_a_run_learns_and_writes_what_the_page_reads(data: Path, tmp_path: Path) -> None:
    run = train(settings(data, tmp_path, steps=60, save_every=20, sample_every=30, keep=2))
    records = runlog.tail(run / runlog.METRICS)[0]
    losses = [r["loss"] for r in records if "loss" in r]
    assert len(losses) == 60
    assert losses[-1] < losses[0] - 1.0
    validated = [r for r in records if "val_bpb" in r]
    assert [r["step"] for r in validated] == list(range(5, 61, 5))
    assert validated[-1]["val_bpb"] < validated[0]["val_bpb"]
    assert {r["step"] for r in runlog.tail(run / runlog.SAMPLES)[0]} == {30, 60}
    assert [p.name for p in checkpoints(run)] == ["step_000040", "step_000060"]
    model, tokenizer, info = load_model(run / "latest")
    assert info["step"] == 60
    assert model.config.vocab_size == tokenizer.n_vocab == 257


def test_accumulated_gradients_equal_one_large_batch(data: Path, tmp_path: Path) -> None:
    def gradients(micro_batch: int) -> list[torch.Tensor]:
        name = f"micro-{micro_batch}"
        run = Run.start(settings(data, tmp_path, name=name, micro_batch=micro_batch))
        run.model.eval()  # dropout draws differently for each split
        run._accumulate(next(run.batches))
        return [p.grad for p in run.model.parameters()]

    for a, b in zip(gradients(4), gradients(1), strict=True):
        torch.testing.assert_close(a, b)


def test_validation_does_not_disturb_training(data: Path, tmp_path: Path) -> None:
    often = train(settings(data, tmp_path, name="often", val_every=1, sample_every=3))
    never = train(settings(data, tmp_path, name="never", val_every=99, sample_every=99))
    a, b = (load_file(checkpoints(r)[-1] / "model.safetensors") for r in (often, never))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_finishes_the_step_and_saves(
    data: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Run.step

    def stepped(run: Run) -> dict[str, Any]:
        if run.progress.step == 1:  # the handler is there since before the first step
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        return step(run)

    monkeypatch.setattr(Run, "step", stepped)
    run = train(settings(data, tmp_path, steps=100_000, save_every=100_000))
    steps = [r["step"] for r in runlog.tail(run / runlog.METRICS)[0] if "loss" in r]
    assert 0 < steps[-1] < 100_000
    assert checkpoints(run)[-1].name == f"step_{steps[-1]:06d}"


def test_a_second_run_of_a_preset_gets_a_number(data: Path, tmp_path: Path) -> None:
    names = [train(settings(data, tmp_path, steps=1)).name for _ in range(2)]
    assert names == ["tiny", "tiny-2"]
    with pytest.raises(UserError, match="--resume"):
        Run.start(settings(data, tmp_path, name="tiny"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"preset": "reference"}, "prepare data with --tokenizer o200k_base"),
        ({"data": Path("nowhere")}, "nowhere"),
        ({"batch_size": 3, "micro_batch": 2}, "multiple of --micro-batch"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"cooldown": 1.5}, "--cooldown"),
        ({"name": "../escape"}, "--name"),
        ({"device": "abacus"}, "--device abacus"),
        ({"seed": -1}, "--seed must be 0 or more"),
        ({"val_windows": 10**6, "data": Path("short")}, "fewer than one window"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, change: dict, sentence: str
) -> None:
    if change.get("data") == Path("short"):
        change = change | {"data": short(data, tmp_path / "short")}
    with pytest.raises(UserError, match=sentence):
        train(settings(data, tmp_path / "runs", **change))
    assert not (tmp_path / "runs").exists()


def test_tensorboard_that_is_missing_is_said_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        Run.start(settings(data, tmp_path / "runs", track="tensorboard"))
    assert not (tmp_path / "runs").exists()


def short(data: Path, target: Path) -> Path:
    """The same training text with a validation file of fewer tokens than the context."""
    corpus = Corpus(data)
    with CorpusWriter(target, corpus.tokenizer) as writer:
        writer.write("train", corpus.train)
        writer.write("val", corpus.val[:9])
        sources = corpus.manifest["sources"]
        writer.finish({"train": sources["train"], "val": [sources["val"][0] | {"tokens": 9}]})
    return target


def test_a_diverged_run_says_so_and_keeps_its_checkpoint(data: Path, tmp_path: Path) -> None:
    run = Run.start(settings(data, tmp_path))
    with torch.no_grad():
        run.model.norm.weight.fill_(float("nan"))
    with pytest.raises(
        UserError,
        match=r"diverged at step 1: .* at --muon-lr .*, --lr .*there is no checkpoint yet",
    ):
        run.step()


def test_an_exploding_loss_stops_the_run_and_names_the_last_good_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    with closing(Run.start(settings(data, tmp_path, save_every=2))) as run:
        run.step()
        run.step()
        with torch.no_grad():
            run.model.tok_emb.weight.mul_(1000)
        with pytest.raises(UserError, match=r"diverged at step 3: the loss is \d.*step_000002"):
            run.step()


def test_weights_that_are_not_numbers_never_become_a_checkpoint(data: Path, tmp_path: Path) -> None:
    with closing(Run.start(settings(data, tmp_path))) as run:
        run.step()
        with torch.no_grad():
            run.model.norm.weight[0] = float("inf")
        said = (
            "diverged at step 1: some weights are no finite numbers, .*there is no checkpoint yet"
        )
        with pytest.raises(UserError, match=said):
            run.save()
    assert not checkpoints(run.directory)


def test_the_first_losses_are_what_they_always_were(data: Path, tmp_path: Path) -> None:
    """Whatever changes training changes these: a change that is meant says so here."""
    text = "".join(f"def f{i}(x):\n    return x + {i * i}\n\n\n" for i in range(400))
    corpus, tokens = Corpus(data), list(text.encode())
    with CorpusWriter(tmp_path / "fixed", corpus.tokenizer) as writer:
        counts = {"files": 0, "bytes": len(tokens), "tokens": len(tokens)}
        for split in ("train", "val"):
            writer.write(split, tokens)
        writer.finish({split: [{"name": "f", **counts}] for split in ("train", "val")})
    run = train(settings(tmp_path / "fixed", tmp_path, steps=8, cooldown=0.0, lr=0.01, muon_lr=0.1))
    losses = [r["loss"] for r in runlog.tail(run / runlog.METRICS)[0] if "loss" in r]
    first = [5.503506, 5.432686, 5.422697, 5.355748, 5.334719, 5.279381, 5.155628, 5.025811]
    assert losses == pytest.approx(first, rel=2e-3)


def test_metrics_say_how_fast_and_how_large_training_is(data: Path, tmp_path: Path) -> None:
    run = train(settings(data, tmp_path, steps=3, track="tensorboard"))
    first = runlog.tail(run / runlog.METRICS)[0][0]
    wanted = ("bpb", "lr", "muon_lr", "grad_norm", "tokens_per_s", "mfu", "memory_gib", "elapsed")
    assert all(first[name] > 0 for name in wanted)
    assert first["mfu"] < 1
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_resuming_on_other_data_is_refused(data: Path, tmp_path: Path) -> None:
    run = train(settings(data, tmp_path, steps=1))
    config = json.loads((run / "config.json").read_text())
    other = shutil.copytree(data, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    tokens = np.fromfile(other / "train.bin", dtype="<u2")[::-1].tobytes()
    (other / "train.bin").write_bytes(tokens)
    manifest["splits"]["train"]["sha256"] = hashlib.sha256(tokens).hexdigest()
    (other / "manifest.json").write_text(json.dumps(manifest))
    (run / "config.json").write_text(json.dumps(config | {"data": str(other)}))
    with pytest.raises(UserError, match="is not the data that"):
        Run.resume(run)


def test_data_prepared_anew_meanwhile_changes_nothing(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    quiet = train(settings(mine, tmp_path, name="quiet"))
    with closing(Run.start(settings(mine, tmp_path, name="disturbed"))) as run:
        run.step()
        ids = np.fromfile(mine / "train.bin", np.uint16)
        shutil.rmtree(mine)
        shutil.copytree(data, mine)
        ids[::-1].tofile(mine / "train.bin")
        run.to_the_end()
    assert_equal_ends(run.directory, quiet)


def test_of_a_resumed_run_only_the_machine_is_given_anew(tmp_path: Path) -> None:
    started = Settings(data=tmp_path, preset="mini", shard=True, track="tensorboard", device="cuda")
    rundir.write_settings(tmp_path, started)
    again = resumed(tmp_path, Settings(resume=tmp_path))
    assert again == replace(started, resume=tmp_path, device="auto", shard=False)
    assert resumed(tmp_path, Settings(resume=tmp_path), launched=True).shard
    rundir.write_settings(tmp_path, replace(started, shard=False, track="none"))
    given = Settings(resume=tmp_path, shard=True, track="tensorboard", device="cpu")
    more = resumed(tmp_path, given, launched=True)
    assert (more.shard, more.track, more.device) == (True, "tensorboard", "cpu")
    with pytest.raises(UserError, match="leave out all but --device, --shard and --track"):
        resumed(tmp_path, Settings(resume=tmp_path, steps=3))


@pytest.mark.parametrize(
    ("rows", "most", "part"), [(16, 8, 8), (100, 16, 10), (9, 8, 3), (7, 8, 7), (13, 8, 1)]
)
def test_a_batch_is_read_in_the_largest_equal_parts(rows: int, most: int, part: int) -> None:
    assert largest_part(rows, most) == part


def test_of_a_damaged_checkpoint_it_is_said_how_to_go_on(data: Path, tmp_path: Path) -> None:
    run = train(settings(data, tmp_path, save_every=4))
    newest = checkpoints(run)[-1]
    for name in ("config.json", "model.safetensors", "optimizer.safetensors", "state.json"):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            UserError, match=rf"{name}.*; or move .*{newest.name} away: the .*000008"
        ):
            Run.resume(run)
        (newest / name).write_bytes(whole)
    discard(newest)
    with closing(Run.resume(run)) as resumed_run:
        assert resumed_run.progress.step == 8
    for checkpoint in checkpoints(run)[:-1]:
        discard(checkpoint)
    (checkpoints(run)[-1] / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json cannot be read \(.*\): restore it$"):
        Run.resume(run)


def test_too_many_processes_are_refused_before_data_is_read(data: Path, tmp_path: Path) -> None:
    run = train(settings(data, tmp_path, steps=1))
    (tmp_path / "gone").mkdir()
    odd = replace(run_settings.load(run), data=tmp_path / "gone")
    with pytest.raises(
        UserError, match=r"--batch-size \(4\) must be a multiple of the 3 processes"
    ):
        Run.resume(run, World(torch.device("cpu"), 0, 3), odd)


def test_resuming_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        Run.resume(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"steps": 3}))
    with pytest.raises(UserError, match="of a training run of this version"):
        Run.resume(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGCONT"), reason="no such signal here")
def test_a_pause_is_told_and_changes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Run.start(settings(data, tmp_path, name="paused"))) as run:
        step = run.step

        def interrupted() -> dict:
            if run.progress.step == 2:
                signal.raise_signal(signal.SIGCONT)
            return step()

        run.step = interrupted
        run.to_the_end()
    assert capsys.readouterr().out.count("paused by SIGSTOP during this step") == 1
    records, _ = runlog.tail(run.directory / runlog.METRICS)
    spent = [r["cpu_seconds"] for r in records if "loss" in r]
    assert spent == sorted(spent)
    assert spent[-1] > 0


def test_a_run_begins_with_the_weights_and_the_shape_of_a_given_model(
    data: Path, tmp_path: Path
) -> None:
    first = train(settings(data, tmp_path, name="first", steps=20))
    given = load_model(first)[0]
    run = Run.start(settings(data, tmp_path, preset="nano", name="second", init_from=first))
    with closing(run):
        assert run.model.config == given.config
        assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), given.parameters()))
        assert not any(optimizer.state for optimizer in run.optimizers)


def test_a_run_that_began_with_a_model_resumes_without_it(data: Path, tmp_path: Path) -> None:
    first = train(settings(data, tmp_path, name="first", steps=6))
    whole = train(settings(data, tmp_path, name="whole", init_from=first, steps=20))
    part = Run.start(settings(data, tmp_path, name="part", init_from=first, steps=20))
    for _ in range(6):
        part.step()
    part.close()
    shutil.rmtree(first)
    part = train(Settings(resume=part.directory))
    assert without_clocks(part / runlog.METRICS) == without_clocks(whole / runlog.METRICS)


def test_a_model_that_reads_other_tokens_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path
) -> None:
    first = train(settings(data, tmp_path, name="first", steps=6))
    config = checkpoints(first)[-1] / "config.json"
    config.write_text(config.read_text().replace('"fingerprint": "', '"fingerprint": "f'))
    with pytest.raises(UserError, match="prepare the data with --tokenizer"):
        Run.start(settings(data, tmp_path, name="second", init_from=first))
    assert not (tmp_path / "second").exists()


def test_a_run_begins_again_with_the_checkpoint_that_it_began_with(
    data: Path, tmp_path: Path
) -> None:
    """Though the run that it is from has newer ones by then."""
    first = Run.start(settings(data, tmp_path, name="first", steps=50, save_every=2))
    for _ in range(2):
        first.step()
    second = Run.start(settings(data, tmp_path, name="second", init_from=first.directory))
    began = [p.clone() for p in second.model.parameters()]
    second.close()
    for _ in range(4):
        first.step()
    first.close()
    with closing(Run.resume(second.directory)) as again:
        assert all(torch.equal(a, b) for a, b in zip(began, again.model.parameters()))


def test_a_damaged_model_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    first = train(settings(data, tmp_path, name="first", steps=6))
    weights = checkpoints(first)[-1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged"):
        Run.start(settings(data, tmp_path, name="second", init_from=first))
    assert not (tmp_path / "second").exists()


def test_a_run_of_an_earlier_version_goes_on(data: Path, tmp_path: Path) -> None:
    first = Run.start(settings(data, tmp_path, name="first", steps=6))
    first.close()
    config = first.directory / "config.json"
    values = json.loads(config.read_text())
    del values["init_from"]
    config.write_text(json.dumps(values))
    assert (train(Settings(resume=first.directory)) / "checkpoints" / "step_000006").is_dir()
