"""Training a tokenizer: the size asked for, a fair sample, and a directory that opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare import train_tokenizer
from prepare.sources.local import folder
from prepare.split import VAL_FRACTION
from ptx.errors import UserError
from ptx.tokenizer import get_tokenizer

TEXT = Path(train_tokenizer.__file__).read_text()


def test_a_trained_tokenizer_has_the_size_asked_for_and_opens_again(tmp_path: Path) -> None:
    trained = train_tokenizer.train("tiny", iter([TEXT]), 600)
    train_tokenizer.save(trained, tmp_path / "tiny", {"sources": []})
    opened = get_tokenizer(str(tmp_path / "tiny"))
    assert (opened.n_vocab, opened.eot) == (600, 599)
    assert opened.record() == trained.record()
    assert opened.decode(opened.encode(TEXT)) == TEXT.encode()
    assert len(opened.encode(TEXT)) < len(TEXT) / 2


def test_training_twice_gives_the_same_tokenizer() -> None:
    first, second = (train_tokenizer.train("tiny", iter([TEXT]), 600) for _ in range(2))
    assert first.fingerprint == second.fingerprint


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="lower --vocab-size"):
        train_tokenizer.train("tiny", iter(["x = 1"]), 16_384)


@pytest.mark.parametrize("size", [0, 256, 70_000])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="--vocab-size must be from 512 to 65,536"):
        train_tokenizer.train("tiny", iter([TEXT]), size)


@given(st.lists(st.integers(0, 1_000), min_size=1), st.integers(1, 5_000))
def test_shares_are_even_and_use_the_budget(sizes: list[int], budget: int) -> None:
    share = train_tokenizer.even_share(sizes, budget)
    given_ = sum(min(size, share) for size in sizes)
    assert given_ <= budget
    assert given_ + len(sizes) > budget or share >= max(sizes)


def test_a_giant_gives_no_more_than_its_share_and_what_validates_gives_nothing(
    tmp_path: Path,
) -> None:
    for name, count in (("torch", 100), ("numpy", 2), ("pydantic", 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.py").write_text(f"# {name} {i}\n" + "x = 1\n" * 100)
    texts, listed = train_tokenizer.texts(folder(tmp_path), VAL_FRACTION, 6_000)
    learned = list(texts)
    assert sum("numpy" in text for text in learned) == 2
    assert 6 <= sum("torch" in text for text in learned) <= 9
    assert not any("pydantic" in text for text in learned)
    assert [source["name"] for source in listed["sources"]] == ["numpy", "torch"]
