"""What the card of a release is made of."""

from __future__ import annotations

from train.release import corrected, curve
from train.samples import PROMPTS, Sample, page, quoted
from train.settings import Settings


def test_the_curve_has_its_end_and_a_row_for_each_halving_before_it() -> None:
    metrics = [{"step": s, "tokens": 10 * s, "val_bpb": 3 - s / 100} for s in range(5, 101, 5)]
    rows = curve([{"step": 1, "loss": 9.0}, *metrics]).splitlines()
    steps = [int(row.split("|")[1]) for row in rows]
    assert steps == [5, 10, 25, 50, 100]
    assert rows[-1] == "| 100 | 1,000 | 2.000 |"
    assert curve([]) == ""


def test_the_card_tells_what_a_cooldown_had_beside_real_text() -> None:
    assert corrected(Settings()) == ""
    assert "16 more windows in which a passage stood again" in corrected(Settings(loops=16))
    assert "8 more windows of training files" in corrected(Settings(grammar=8))


def test_a_sample_cannot_close_its_fence() -> None:
    sample = Sample(PROMPTS[0], 3, "\n```\n# escaped\n````")
    assert quoted(sample).startswith("`````python\n")
    assert quoted(sample).endswith("\n`````")
    text = page("mini", [sample])
    assert "# 1 samples of mini" in text
    assert "## Prompt 1, seed 3" in text
