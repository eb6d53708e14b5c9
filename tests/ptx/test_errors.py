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


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        _ = 1 / 0
