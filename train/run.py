"""python train/run.py : train a GPT, evaluate or release one. --help teaches."""

from __future__ import annotations

import sys
from pathlib import Path

# As a script, the first entry is this folder: make it the repository.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import tyro

from ptx.errors import report_errors
from train.cooldown import Cooldown, cooldown
from train.evaluate import Evaluate, evaluate
from train.history import History, history
from train.loop import train
from train.release import Release, release
from train.settings import Settings


@report_errors()
def main(words: list[str]) -> None:
    if words[:1] == ["evaluate"]:
        evaluate(tyro.cli(Evaluate, prog="train/run.py evaluate", args=words[1:]))
    elif words[:1] == ["doctor"]:
        from train.doctor import Doctor, doctor  # its tools take a while to import

        doctor(tyro.cli(Doctor, prog="train/run.py doctor", args=words[1:]))
    elif words[:1] == ["cooldown"]:
        cooldown(tyro.cli(Cooldown, prog="train/run.py cooldown", args=words[1:]))
    elif words[:1] == ["history"]:
        history(tyro.cli(History, prog="train/run.py history", args=words[1:]))
    elif words[:1] == ["release"]:
        release(tyro.cli(Release, prog="train/run.py release", args=words[1:]))
    else:
        train(tyro.cli(Settings, prog="train/run.py", args=words))


if __name__ == "__main__":
    main(sys.argv[1:])
