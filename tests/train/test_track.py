"""TensorBoard reads back exactly what the run did, also after it was interrupted."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from ptx.errors import UserError
from train.track import TensorBoard, code_block


def read(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"))
    return events.Reload()


def curve(run: Path, tag: str) -> dict[int, float]:
    """Value by step; a step that appears twice fails."""
    events = read(run).Scalars(tag)
    assert len({e.step for e in events}) == len(events)
    return {e.step: e.value for e in events}


def test_every_figure_of_a_record_is_a_curve(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.metrics({"step": 1, "tokens": 64, "loss": 5.5, "bpb": 2.25, "lr": 0.5, "mfu": None})
    board.metrics({"step": 1, "tokens": 64, "val_loss": 6.5, "val_bpb": 3.25, "elapsed": 1.0})
    board.close()
    assert set(read(tmp_path).Tags()["scalars"]) == {
        "train/loss", "train/bpb", "train/lr", "val/loss", "val/bpb",
    }  # fmt: skip
    assert curve(tmp_path, "train/loss") == {1: 5.5}
    assert curve(tmp_path, "val/bpb") == {1: 3.25}


def test_steps_done_again_after_a_resume_appear_once(tmp_path: Path) -> None:
    for start, end, loss in ((0, 5, 4.0), (3, 8, 2.0)):  # killed at 5, last checkpoint at 3
        board = TensorBoard(tmp_path, from_step=start)
        for step in range(start + 1, end + 1):
            board.metrics({"step": step, "loss": loss})
        board.close()
    assert curve(tmp_path, "train/loss") == {s: 4.0 if s <= 3 else 2.0 for s in range(1, 9)}


def test_a_file_cut_off_in_the_middle_of_a_record_costs_only_that_record(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for step in (1, 2):
        board.metrics({"step": step, "loss": 4.0})
    board.close()
    [path] = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    board = TensorBoard(tmp_path, from_step=1)
    board.metrics({"step": 2, "loss": 2.0})
    board.close()
    assert curve(tmp_path, "train/loss") == {1: 4.0, 2: 2.0}


def test_samples_are_kept_by_prompt_and_step(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for step in (1, 2):
        board.sample(step, "def ", f"f{step}():")
    board.close()
    events = read(tmp_path).Tensors("samples/def/text_summary")
    texts = [e.tensor_proto.string_val[0].decode() for e in events]
    assert [e.step for e in events] == [1, 2]
    assert texts == ["```\ndef f1():\n```", "```\ndef f2():\n```"]


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x * y * z  # _not_ *emphasis*\n\n\n    pass\n",
        "<script>alert(1)</script> &amp; <b>",
        "```\n<img src=x onerror=alert(1)>\n```\n# heading",
        "~~~~\n`a` ``b`` ````\n- item",
        "",
    ],
)
def test_tensorboard_shows_the_text_as_it_is(text: str) -> None:
    page = markdown_to_safe_html(code_block(text))
    shown = re.fullmatch(r"<pre><code>(.*)\n</code></pre>", page, re.DOTALL)
    assert shown, page
    assert "<" not in shown[1]
    assert html.unescape(shown[1]) == text


def test_without_the_package_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())
