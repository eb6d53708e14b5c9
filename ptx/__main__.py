"""python -m ptx "def fibonacci(n):" : continue a prompt in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ptx.checkpoint import load_model
from ptx.engine import Generation, prompt_notes, window_notes
from ptx.errors import report_errors
from ptx.sampling import Sampling

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "mini"


@dataclass
class Complete:
    """Continue a prompt with a trained model, streaming to the terminal.

    Example: python -m ptx "class Stack:" --model runs/nano/latest --temperature 0.5
    """

    prompt: Annotated[str, tyro.conf.Positional]
    """The Python to continue. It may end anywhere, inside a word too."""
    model: Path = DEFAULT_MODEL
    """A model directory, or a run directory for its newest checkpoint."""
    temperature: float = 0.8
    """Below 1 is safer, above 1 is wilder, 0 always takes the most likely token."""
    top_k: int = 0
    """Choose among the k most likely tokens only; 0 means all."""
    top_p: float = 0.95
    """Choose among the fewest tokens that hold this probability; 1 means all."""
    tokens: int = 200
    """Stop after this many new tokens."""
    seed: int = 0
    """The same seed gives the same text."""


@report_errors()
def main() -> None:
    sys.stdout.reconfigure(errors="replace")  # half a character in a prompt is no reason to fail
    args = tyro.cli(Complete, prog="python -m ptx")
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    model, tokenizer, _ = load_model(args.model)
    generation = Generation(model, tokenizer, args.prompt, sampling, args.tokens, args.seed)
    for note in (
        *prompt_notes(tokenizer, args.prompt),
        *window_notes(len(generation.ids), model.config.context),
    ):
        print(f"note: {note}", file=sys.stderr)
    print(args.prompt, end="", flush=True)
    try:
        for step in generation:
            print(step.text, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()


if __name__ == "__main__":
    sys.exit(main())
