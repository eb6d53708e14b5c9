"""Whether what a model writes is still Python: read by Python's own parser, never executed."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np

from ptx.engine import Engine
from ptx.errors import UserError
from ptx.model import GPT
from ptx.prefix import syntax_error
from ptx.sampling import USUAL, Sampling
from ptx.stream import Limits
from ptx.tokenizer import Tokenizer
from train.heldout import Text

NEW_TOKENS = 256
LONGEST_PROMPT = 6_000
"""Characters of a file that are given, at most."""
SHORTEST_PROMPT = 200
SLOTS = 16
TELLING = 8
"""Characters of a line from which on it is a repetition, where it comes again."""
PAIRS = {")": "(", "]": "[", "}": "{"}
NEVER_ENDS = re.compile("EOF in multi-line|unexpected EOF|unterminated triple-quoted")
"""What Python's tokenizer says of text that ends within a bracket or a string of three quotes."""


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after the beginning of a held-out file."""

    prompt: str
    text: str
    ended: bool
    """Whether it closed the file itself, before its tokens were used up."""
    other: str
    """As much of another held-out file: what a check that can fail fails on."""
    tokens: int = 0
    refused: int = 0
    """Tokens that Python's parser refused on the way."""


@dataclass(frozen=True)
class Closure:
    """How well continuations close what they open."""

    parsed: float
    """Share that parses, or would if it went on after its last whole line."""
    parsed_control: float
    """The same when another file's text takes the place of the model's."""
    parsed_python: float
    """The same when Python's parser may refuse tokens (`Sampling.python`)."""
    statements: float
    """Share that parses up to its last complete statement: more, as what follows a bracket that is
    never closed is all one statement, which is not complete (`statements_parse`)."""
    statements_control: float
    """The same when another file's text takes the place of the model's."""
    refused: float
    """Tokens that it refused then, for each that came."""
    brackets: float
    """Share of the brackets opened in the first half of a continuation that the right one closes
    before its end."""
    indentation: float
    """Share of the new lines that stand at a depth which the lines before allow: one level in
    after a colon, else at an open level."""
    repeated: float
    """Share of the lines that the same continuation has already, but for short ones."""
    repeated_control: float
    """The same of another file's text: so often people repeat themselves."""
    continuations: int


def measure(
    begun: list[tuple[str, str]],
    model: GPT,
    tokenizer: Tokenizer,
    seed: int,
    sampling: Sampling = USUAL,
) -> Closure:
    """Continues what `prompts` returned and judges what comes."""
    written = continue_all(begun, model, tokenizer, seed, sampling)
    kept = continue_all(begun, model, tokenizer, seed, replace(sampling, python=True))
    return judge(written, kept)


def prompts(texts: list[Text], count: int, seed: int) -> list[tuple[str, str]]:
    """(the beginning of a held-out file, text of another one from a place like its end).

    Files are drawn evenly; a beginning ends anywhere in the file, inside a word too.
    """
    files = [d.decode("utf-8", "ignore") for text in texts for d in text.documents]
    long = [file for file in files if len(file) >= 2 * SHORTEST_PROMPT and parses(file)]
    if len(long) < 2:
        raise UserError(
            f"continuations need two files of {2 * SHORTEST_PROMPT} characters that parse: score "
            "more text, or leave out --continuations"
        )
    random = np.random.default_rng(seed)
    order = random.permutation(np.arange(count) % len(long))
    ends = [
        int(random.integers(SHORTEST_PROMPT, min(len(long[i]) - 1, LONGEST_PROMPT))) for i in order
    ]
    return [
        (long[i][:end], long[j][min(end, len(long[j]) // 2) :])
        for i, j, end in zip(order, np.roll(order, 1), ends, strict=True)
    ]


def continue_all(
    begun: list[tuple[str, str]], model: GPT, tokenizer: Tokenizer, seed: int, sampling: Sampling
) -> list[Continuation]:
    """The model's continuation of each prompt, many at once."""
    limits = Limits(max_tokens=NEW_TOKENS)
    with (
        Engine(model, tokenizer, slots=SLOTS, waiting=len(begun)) as engine,
        ThreadPoolExecutor(SLOTS) as readers,
    ):

        def one(number: int, prompt: str, other: str) -> Continuation:
            generation = engine.generate(prompt, sampling, limits, seed + number)
            steps = list(generation)
            text = "".join(step.text for step in steps)
            ended = generation.finish == "end of text"
            refused = sum(len(step.choice.refused) for step in steps)
            return Continuation(prompt, text, ended, other[: len(text)], len(steps), refused)

        return list(readers.map(one, range(len(begun)), *zip(*begun, strict=True)))


def judge(continuations: list[Continuation], kept: list[Continuation]) -> Closure:
    """What `measure` returns, of texts at hand; kept: those of which Python's parser refused
    tokens."""
    parsed = [parses(c.prompt + c.text, c.ended) for c in continuations]
    control = [parses(c.prompt + c.other) for c in continuations]
    whole = [statements_parse(c.prompt + c.text, c.ended) for c in continuations]
    whole_control = [statements_parse(c.prompt + c.other) for c in continuations]
    brackets = [ok for c in continuations for ok in bracket_closures(c)]
    lines = [ok for c in continuations for ok in line_depths(c)]
    repeated = [again for c in continuations for again in repeats(c.text)]
    theirs = [again for c in continuations for again in repeats(c.other)]
    return Closure(
        parsed=share(parsed),
        parsed_control=share(control),
        parsed_python=share([parses(c.prompt + c.text, c.ended) for c in kept]),
        statements=share(whole),
        statements_control=share(whole_control),
        refused=sum(c.refused for c in kept) / max(1, sum(c.tokens for c in kept)),
        brackets=share(brackets),
        indentation=share(lines),
        repeated=share(repeated),
        repeated_control=share(theirs),
        continuations=len(continuations),
    )


def share(found: list[bool]) -> float:
    return sum(found) / max(1, len(found))


def parses(text: str, ended: bool = False) -> bool:
    """Whether `text` is Python, or would be if it went on after its last whole line.

    ended: nothing is to come, so it has to be whole.
    """
    return syntax_error(text, ended) is None


def statements_parse(text: str, ended: bool = False) -> bool:
    """Whether `text` without its last line, if that is cut, is Python up to the end of its last
    logical line that is complete. Of what follows, brackets closed by the wrong ones and strings
    that do not end on their line are wrong, and all else is let pass.

    ended: nothing is to come, so it has to be whole.
    """
    fine = parses(text, ended)
    if fine or ended:
        return fine
    text = text[: text.rfind("\n") + 1]
    complete, open_ones = 0, [""]  # lines, brackets
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NEWLINE:
                complete = token.end[0]
            elif token.type == tokenize.OP and token.string in PAIRS.values():
                open_ones.append(token.string)
            wrong = token.type == tokenize.OP and token.string in PAIRS
            wrong = wrong and open_ones.pop() != PAIRS[token.string]
            if wrong or token.type == tokenize.ERRORTOKEN:  # for which Python 3.12 raises
                return False
    except tokenize.TokenError as error:
        if NEVER_ENDS.search(str(error)):
            return parses("".join(list(io.StringIO(text))[:complete]))
    except SyntaxError:  # an indent that fits nothing
        pass
    return False


def bracket_closures(c: Continuation) -> Iterator[bool]:
    """For each bracket opened in the first half of the new text: is it closed by the right one?"""
    text, begin, half = c.prompt + c.text, len(c.prompt), len(c.prompt) + len(c.text) // 2
    lines = line_starts(text)
    open_ones: list[tuple[str, int]] = []
    for token in tokens(text):
        place = lines[token.start[0] - 1] + token.start[1]
        if token.type != tokenize.OP:
            continue
        if token.string in PAIRS.values():
            open_ones.append((token.string, place))
        elif token.string in PAIRS:
            opener, opened_at = open_ones.pop() if open_ones else ("", -1)
            if begin <= opened_at < half:
                yield opener == PAIRS[token.string]
    yield from (False for _, opened_at in open_ones if begin <= opened_at < half)


def line_depths(c: Continuation) -> Iterator[bool]:
    """For each logical line that begins in the new text, whether its indentation is allowed."""
    text = c.prompt + c.text[: c.text.rfind("\n") + 1]
    first = c.prompt.count("\n") + 2  # the line after the one that the prompt ends in
    colon = indented = False
    fresh = True  # at the start of a logical line
    last = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.INDENT:
                indented = True
            elif token.type == tokenize.NEWLINE:
                colon, fresh = last == ":", True
            elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.DEDENT):
                if fresh and token.start[0] >= first and token.type != tokenize.ENDMARKER:
                    yield indented == colon
                fresh = indented = False
                last = token.string
    except IndentationError:  # a dedent to no open level
        yield False
    except (tokenize.TokenError, SyntaxError):  # the text ends inside a bracket or a string
        return


def repeats(text: str) -> Iterator[bool]:
    """For each line that says something, whether it was there before."""
    seen = set()
    for line in map(str.strip, text.splitlines()):
        if len(line) >= TELLING:
            yield line in seen
            seen.add(line)


def tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """Python's tokens, up to where the text can no longer be read as such."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):
        return


def line_starts(text: str) -> list[int]:
    """Where every line begins."""
    starts = [0]
    for line in io.StringIO(text):
        starts.append(starts[-1] + len(line))
    return starts


def as_dict(found: Closure) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(found).items()}
