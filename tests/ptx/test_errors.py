"""Bad input ends in one sentence and status 2; a defect keeps its traceback."""

from __future__ import annotations

import pytest

from ptx.errors import UserError, report_errors


def test_a_user_error_becomes_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    @report_errors()
    def entry_point() -> None:
        raise UserError("No such preset.")

    with pytest.raises(SystemExit) as stopped:
        entry_point()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: No such preset.\n"


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (OSError(28, "No space left on device", "train.bin"), 2, "error: train.bin: No space left"),
        (OSError("6 requested and 4 written"), 2, "error: 6 requested and 4 written"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_a_full_disk_and_ctrl_c_end_in_one_line(
    error: BaseException, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, report_errors():
        raise error
    assert stopped.value.code == status
    shown = capsys.readouterr().err
    assert shown.startswith(sentence)
    assert shown.count("\n") == 1


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        _ = 1 / 0
