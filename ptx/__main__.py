"""python -m ptx "def fibonacci(n):" : continue a prompt in the terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ptx.checkpoint import load_model
from ptx.decoder import Decoder
from ptx.engine import Generation, generate
from ptx.errors import UserError, report_errors
from ptx.int8 import as_int8
from ptx.sampling import USUAL, Sampling
from ptx.stream import UNCHECKED, Limits, Step, prompt_notes, python_notes, window_notes
from ptx.tokenizer import Tokenizer

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "mini"
ALTERNATIVES = 5
"""Per token, in --json."""
LONG = 1500
"""Tokens that repay compiling the decoder, 20 s or so the first time on a machine; what
was compiled once, here or by the page, is used for short texts too."""


@dataclass
class Complete:
    """Continue a prompt with a trained model, streaming to the terminal.

    For example:

    python -m ptx "class Stack:" --model runs/nano/latest --temperature 0.5

    python -m ptx - < unfinished.py > finished.py

    python -m ptx "def mean(" --stop "\\n\\n" --json (a line of JSON per token)
    """

    prompt: Annotated[str, tyro.conf.Positional]
    """The Python to continue; it may end anywhere, inside a word too. - reads standard input. It
    stands before --stop, --ban and --force, which take all words that follow."""
    model: Path = DEFAULT_MODEL
    """A model directory, or a run directory for its newest checkpoint."""
    temperature: float = USUAL.temperature
    """Below 1 is safer, above 1 is wilder, 0 always takes the most likely token."""
    top_k: int = 0
    """Choose among the k most likely tokens only; 0 means all."""
    top_p: float = USUAL.top_p
    """Choose among the fewest tokens that hold this probability; 1 means all."""
    min_p: float = USUAL.min_p
    """Choose among tokens at least this share as likely as the most likely one; 0 means all."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that the text has already less likely."""
    ban: tuple[str, ...] = ()
    """Texts of single tokens that may not come, such as "#" or " import"."""
    force: tuple[str, ...] = ()
    """Texts of the only tokens that may come."""
    python: bool = False
    """Keep the text Python: draw again where its parser would give up."""
    tokens: int = 200
    """Stop after this many new tokens."""
    seconds: float | None = None
    """Stop so long after the first new token."""
    stop: tuple[str, ...] = ()
    """Stop once the new text holds one of these; \\n means a new line."""
    seed: int = 0
    """The same seed gives the same text."""
    speculate: bool = True
    """Guess ahead where the text repeats itself; faster, and the same text."""
    int8: bool = False
    """Round the weights to 8 bits: less memory to read, not quite the same model."""
    json: bool = False
    """Print a line of JSON per token: id, text, bytes, probabilities, rank, alternatives."""


@report_errors()
def main() -> None:
    if sys.stdout is None:
        raise UserError("standard output is closed: there is nowhere to write")
    sys.stdout.reconfigure(errors="replace")  # half a character in a prompt is no reason to fail
    args = tyro.cli(Complete, prog="python -m ptx")
    prompt = read_prompt() if args.prompt == "-" else args.prompt
    model, tokenizer, _ = load_model(args.model)
    sampling = Sampling(
        args.temperature,
        args.top_k,
        args.top_p,
        args.min_p,
        args.repetition_penalty,
        banned=tokens_of(tokenizer, "--ban", args.ban),
        forced=tokens_of(tokenizer, "--force", args.force),
        python=args.python,
    )
    limits = Limits(args.tokens, args.seconds, tuple(s.replace("\\n", "\n") for s in args.stop))
    model = as_int8(model) if args.int8 else model
    decoder = Decoder(model)
    if args.tokens >= LONG and not decoder.compiled and decoder.can_compile():
        tell("compiling the decoder, once on this machine: up to half a minute")
        decoder.compile()
    generation = generate(
        model, tokenizer, prompt, sampling, limits, args.seed, decoder, speculate=args.speculate
    )
    python = python_notes(tokenizer, prompt) if args.python else []
    tell(
        *prompt_notes(tokenizer, prompt),
        *window_notes(len(generation.ids), model.config.context),
        *python,
    )
    write_lines(generation, tokenizer) if args.json else write_text(generation, prompt)
    if generation.unchecked and not python:
        tell(UNCHECKED)


def tell(*notes: str) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def read_prompt() -> str:
    """Standard input as text, its line endings as they are."""
    if sys.stdin is None:
        raise UserError("standard input is closed: give the prompt itself")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is not UTF-8 (byte {error.start}): convert it first"
        ) from None


def tokens_of(tokenizer: Tokenizer, option: str, texts: tuple[str, ...]) -> tuple[int, ...]:
    """The ids of texts that are one token each."""
    ids = []
    for text in texts:
        tokens = tokenizer.encode(text.replace("\\n", "\n"))
        if len(tokens) != 1:
            raise UserError(f"{option} {text!r} is {len(tokens)} tokens of this model, not one")
        ids += tokens
    return tuple(ids)


def write_text(generation: Generation, prompt: str) -> None:
    print(prompt, end="", flush=True)
    try:
        for step in generation:
            print(step.text, end="", flush=True)
    finally:
        print(flush=True)  # before what stopped it is told


def write_lines(generation: Generation, tokenizer: Tokenizer) -> None:
    for step in generation:
        print(json.dumps(as_record(step, tokenizer)), flush=True)
    n_new = len(generation.ids) - generation.n_prompt
    print(json.dumps({"finish": generation.finish, "tokens": n_new}), flush=True)


def as_record(step: Step, tokenizer: Tokenizer) -> dict[str, Any]:
    """A step as JSON values; bytes as Python writes them, probabilities before and after knobs."""
    if step.token is None:  # what is left of half a character
        return {"text": step.text}
    choice = step.choice
    return {
        "id": step.token,
        "text": step.text,
        "bytes": repr(step.bytes),
        "logprob": round(step.logprob, 6),
        "raw_logprob": round(choice.logprob(step.token), 6),
        "rank": step.rank,
        "entropy_bits": round(choice.entropy, 6),
        "tail_mass": round(choice.tail_mass, 6),
        "unchecked": step.unchecked,
        "refused": [tokenizer.text([token]) for token in choice.refused],
        "alternatives": [
            {
                "id": a.token,
                "text": tokenizer.text([a.token]),
                "raw": round(a.raw, 6),
                "final": round(a.final, 6),
                "cut_by": a.cut_by,
            }
            for a in choice.top(ALTERNATIVES)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
