"""The page's questions for programs: named endpoints that answer in plain JSON.

A program gives a text as text; positions count its tokens, of which number 0 is end-of-text, the
start of every text. The docstrings are the documentation that Gradio shows.
"""

# without `from __future__ import annotations`: Gradio reads return types as they stand
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, Literal

import gradio as gr
from torch import Tensor

from ptx import lens
from ptx.engine import Generation
from ptx.errors import UserError
from ptx.playground.limits import Rate, visitor
from ptx.playground.live import throttled
from ptx.playground.models import FIRST, Models
from ptx.playground.openend import open_prompt
from ptx.playground.question import Question
from ptx.playground.reading import Reading, view_of
from ptx.playground.request import Request
from ptx.playground.runs import Runs, settings_of
from ptx.playground.told import Answer, finite, name_of, of_token
from ptx.sampling import USUAL, Choice, Sampling

END = -1
"""The position after the last token."""
NONE = -1
"""No token id."""
ENCODINGS = ("numbers", "base64")
MOST = 1000
"""Alternatives in one answer."""
AT_ONCE = 4
"""Calls that are worked on at a time."""


class Programs:
    """The endpoints. Each raises gr.Error, one sentence, for what it cannot answer."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def tokens(self, text: str, model: str = "") -> dict[str, Any]:
        """Cuts a text into the tokens that the model reads. Token 0 is end-of-text, the start of
        every text; the positions of the other endpoints count from it.

        Parameters:
            text: any Python, up to 65,536 bytes, or what PTX_PROMPT_BYTES says
            model: a name from the page's list of models; the page's first one if left out
        Returns:
            {"ids": [...], "texts": [...]}
        """
        ids = _told(self._reading.tokens({"text": text, "model": model}))["ids"]
        tokenizer = self._reading.models.get(model).tokenizer
        return {"ids": ids, "texts": [name_of(tokenizer, token) for token in ids]}

    def look(
        self,
        text: str,
        at: int = END,
        n: int = 10,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        muted: list[str] | None = None,
        model: str = "",
    ) -> dict[str, Any]:
        """The choice of the token at position `at`: how likely the n likeliest tokens were, before
        (`raw`) and after (`final`) the knobs, exact over the whole vocabulary, and which knob
        removed a token; of the token that stands there its probability, bits and rank.

        Parameters:
            text: the Python to look at
            at: a position, 1 for the first token of the text; -1 for what comes after its last one
            n: how many alternatives, at most 1,000
            temperature: the knobs; left out, they change nothing
            muted: heads that write nothing, such as ["0.3", "2.1"], layer.head
            model: a name from the page's list of models; the page's first one if left out
        Returns:
            {"at", "start", "token", "text", "prob", "bits", "rank", "healed", "entropy",
            "final_entropy", "tail_mass", "alternatives": [{"token", "text", "raw", "final",
            "cut_by"}]}; start is the first position that the model saw, bits measure entropy;
            healed: the text may end inside a token, and the alternatives are weighed over all ways
            to cut its end, as /generate draws them
        """
        knobs = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
        }
        try:
            q, ids, cursor = self._question(text, at, n=n, muted=muted, model=model, **knobs)
            wanted, sampling = q.whole("n", 1, MOST), _sampling(q)
            seen = q.served.traces.at(ids, cursor, q.mute)
            opened = open_prompt(q.served, text, ids) if cursor == len(ids) else None
            logits = opened.after(q.mute)[0] if opened else seen.trace.logits_after(seen.query)
        except UserError as error:
            raise _refusal(error) from None
        choice = Choice(logits, sampling, ids[:cursor])
        tokenizer = q.served.tokenizer
        return {
            "at": cursor,
            "start": seen.start,
            **of_token(tokenizer, choice, ids[cursor] if cursor < len(ids) else None),
            "healed": opened is not None,
            "entropy": choice.entropy,
            "final_entropy": choice.final_entropy,
            "tail_mass": choice.tail_mass,
            "alternatives": [
                {"text": name_of(tokenizer, one.token), **vars(one)} for one in choice.top(wanted)
            ],
        }

    def attention(
        self,
        text: str,
        layer: int,
        head: int,
        at: int = END,
        view: Literal["raw", "no sink", "weighted"] = "raw",
        encoding: Literal["numbers", "base64"] = "numbers",
        muted: list[str] | None = None,
        model: str = "",
    ) -> dict[str, Any]:
        """Where one head looks: the whole matrix, row = the position that reads, column = the one
        that is read, in the window that the model sees before `at`.

        Parameters:
            text: the Python to look at
            layer: from 0
            head: from 0
            at: a position, 1 for the first token of the text; -1 for the whole text
            view: raw weights; without the first token, rows summing to 1 again; or weighted by how
                much is written, in the units of the residual stream
            encoding: numbers as lists of lists, or base64 of little-endian float32, row by row
            muted: heads that write nothing, such as ["0.3", "2.1"], layer.head
            model: a name from the page's list of models; the page's first one if left out
        Returns:
            {"at", "start", "texts": [...], "weights": [[...]] or base64}; start is the position of
            the first row and column, texts are the tokens of the rows
        """
        fields = {"layer": layer, "head": head, "view": view, "encoding": encoding}
        try:
            q, ids, cursor = self._question(text, at, muted=muted, model=model, **fields)
            (layer, head), as_ = q.head, q.one_of("encoding", ENCODINGS)
            seen = q.served.traces.at(ids, cursor, q.mute)
            weights, scale = view_of(q, seen)
        except UserError as error:
            raise _refusal(error) from None
        matrix = weights[layer, head] * scale  # (T, T)
        packed = b64encode(matrix.numpy().astype("<f4").tobytes()).decode()
        return {
            "at": cursor,
            "start": seen.start,
            "texts": [name_of(q.served.tokenizer, token) for token in seen.ids],
            "weights": packed if as_ == "base64" else matrix.tolist(),
        }

    def roles(self, text: str = "", model: str = "") -> dict[str, Any]:
        """What each head does, scored on the end of a text that the model sees, or on a reference
        text if none is given: the share of its attention, the first token left out, that goes where
        a head with this role would look.

        Parameters:
            text: some Python; the more of it, the surer
            model: a name from the page's list of models; the page's first one if left out
        Returns:
            {"labels": [layer][head], "scores": {role: [layer][head]}, "even": {role: what even
            attention would score}, "queries": {role: positions that have a target}, "sink":
            [layer][head], the share of the first token, "entropy": [layer][head] in bits}; null
            where the text asks nothing of a role
        """
        try:
            q, ids, cursor = self._question(text, END, model=model)
            served = q.served
            found = served.reference_roles
            if len(ids) > 1:
                seen = served.traces.at(ids, cursor, q.mute)
                found = lens.roles(served.tokenizer, seen.ids, seen.square())
        except UserError as error:
            raise _refusal(error) from None
        c = served.model.config
        return {
            "labels": [[found.label(i, j) for j in range(c.n_head)] for i in range(c.n_layer)],
            "scores": dict(zip(lens.ROLES, _plain(found.scores))),
            "even": dict(zip(lens.ROLES, _plain(found.uniform))),
            "queries": dict(zip(lens.ROLES, found.queries.tolist())),
            "sink": _plain(found.sink),
            "entropy": _plain(found.entropy),
        }

    def lens(
        self,
        text: str,
        at: int = END,
        against: int = NONE,
        muted: list[str] | None = None,
        model: str = "",
    ) -> dict[str, Any]:
        """Why this token: what the model would have said after each layer (the logit lens), and
        what each head and MLP added to the logit of the token at `at`, less that of another.

        Parameters:
            text: the Python to look at
            at: a position, 1 for the first token of the text; -1 for what comes after its last one,
                where the likeliest token is followed
            against: the id of the other token; -1 for the likeliest other one
            muted: heads that write nothing, such as ["0.3", "2.1"], layer.head
            model: a name from the page's list of models; the page's first one if left out
        Returns:
            {"at", "start", "lens": {"tokens": [layer][3] of {"id", "text", "p"}, "prob": [layer],
            "rank": [layer], "followed"}, "parts": {"token", "against", "embedding", "heads":
            [layer][head], "mlps": [layer], "biases", "total"}}; layer 0 of the lens is the
            embedding; parts are in logits and sum to total
        """
        fields = {"muted": muted, "against": None if against == NONE else against, "model": model}
        answer = _told(self._reading.look(self._fields(text, at, fields) | {"open": text}))
        return {name: answer[name] for name in ("at", "start", "lens", "parts")}

    def ablation(
        self,
        text: str,
        muted: list[str],
        at: int = END,
        target: int = NONE,
        each: bool = False,
        model: str = "",
    ) -> dict[str, Any]:
        """What muting heads costs, in bits: the token at `at`, and a token of the text before it on
        average. After the text all ways to cut its end are weighed, as generation does.

        Parameters:
            text: the Python to look at
            muted: heads that write nothing, such as ["0.3", "2.1"], layer.head
            at: a position, 1 for the first token of the text; -1 for what comes after its last one
            target: the id of the token to watch; -1 for the one at `at`, or the likeliest
            each: also mute every head of the model alone, which takes seconds
            model: a name from the page's list of models; the page's first one if left out
        Returns:
            {"at", "token", "next", "loss", "base_next", "base_loss", "each": [layer][head],
            "each_loss": [layer][head]}; next and loss are how many bits more they cost than in the
            whole model, where they cost base_next and base_loss
        """
        target_ = None if target == NONE else target
        fields = {"muted": muted, "target": target_, "each": each, "model": model}
        return _told(self._reading.price(self._fields(text, at, fields) | {"open": text}))

    def _fields(self, text: Any, at: Any, fields: dict[str, Any]) -> dict[str, Any]:
        """A request about the tokens of `text`."""
        asked = {"text": text, "model": fields["model"]}
        ids = _told(self._reading.tokens(asked))["ids"]
        return fields | {"ids": ids, "at": len(ids) if at == END else at}

    def _question(self, text: Any, at: Any, **fields: Any) -> tuple[Question, list[int], int]:
        """The same, checked: with the tokens and the cursor."""
        q = Question(self._reading.models, self._fields(text, at, fields))
        ids = q.ids
        return q, ids, q.cursor(ids)


class Logs:
    """The endpoints about training runs. Each raises gr.Error, as those of `Programs`."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def runs(self) -> list[dict[str, Any]]:
        """The training runs that the page shows, the newest first.

        Returns:
            [{"key", "name", "state", "step", "steps", "checkpoint", "lines"}]; lines: the last that
            a failed run said
        """
        return self._runs.listing()

    def metrics(self, run: str = "") -> dict[str, Any]:
        """The curves of one run. A long run is thinned to some thousand points, which keep every
        extreme.

        Parameters:
            run: a key from /runs; the newest or a live run if left out
        Returns:
            {"run", "train": {"step": [...], "bpb": [...], ...}, "val": {"step", "val_bpb", ...},
            "latest": {name: newest value}, "texts": [{"step", "prompt", "text"}], "settings"}
        """
        if run and run not in self._runs.paths():
            raise _refusal(f"there is no run {run!r} here: /runs has the list")
        answer = self._runs.follow({"run": run})
        path = self._runs.paths().get(answer["run"])
        if path is None:
            raise _refusal("there is no run here yet")
        shown = self._runs.whole(path) | {"settings": settings_of(path)}
        names = ("train", "val", "latest", "texts", "settings")
        return {"run": answer["run"]} | {name: shown[name] for name in names}


def expose(reading: Reading, runs: Runs, texts: Rate) -> None:
    """Adds the endpoints to the page that is being built. texts: how many each visitor may ask
    for."""
    generate = generator(reading.models, texts)
    gr.api(generate, api_name="generate", concurrency_limit=None)
    it, logs = Programs(reading), Logs(runs)
    endpoints = (it.tokens, it.look, it.attention, it.roles, it.lens, it.ablation)
    rate = Rate(reading.models.limits.per_minute)
    for endpoint in (*endpoints, logs.runs, logs.metrics):
        gr.api(
            admitted(endpoint, rate),
            api_name=endpoint.__name__,
            concurrency_limit=AT_ONCE,
            concurrency_id="reading",
        )


def generator(models: Models, rate: Rate) -> Callable[..., Iterator[str]]:
    """The endpoint /generate."""

    def generate(
        prompt: str,
        sender: gr.Request,
        temperature: float = USUAL.temperature,
        top_k: int = 0,
        top_p: float = USUAL.top_p,
        length: int = 200,
        seed: int = 0,
        min_p: float = USUAL.min_p,
        repetition_penalty: float = 1.0,
        model: str = FIRST,
        python: bool = False,
    ) -> Iterator[str]:
        """Continues a piece of Python: what comes after the prompt, again and again as it grows.
        The last one is whole. With `python` it stays such that Python's parser can go on."""
        request = Request(
            prompt or "",
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            length=length,
            seed=seed,
            python=python,
        )
        try:
            rate.admit(visitor(sender))
            engine = models.get(model).engine
            yield from throttled(continuation(request.legs(engine)))
        except UserError as error:
            raise _refusal(error) from None

    return generate


def continuation(legs: Iterator[Generation]) -> Iterator[str]:
    """What comes after the prompt, longer with every token."""
    text = ""
    for generation in legs:
        try:
            for step in generation:
                text += step.text
                yield text
        finally:  # a reader who leaves lets the next one in
            generation.cancel()
    yield text


def admitted(endpoint: Callable[..., Any], rate: Rate) -> Callable[..., Any]:
    """The endpoint, for visitors who do not ask too often. Gradio tells who asks by the first
    parameter, and takes the others and the words from the endpoint itself."""

    def call(sender: gr.Request, *arguments: Any) -> Any:
        try:
            rate.admit(visitor(sender))
        except UserError as error:
            raise _refusal(error) from None
        return endpoint(*arguments)

    update_wrapper(call, endpoint)
    sender, own = Parameter("sender", Parameter.POSITIONAL_OR_KEYWORD), signature(endpoint)
    call.__signature__ = own.replace(parameters=[sender, *own.parameters.values()])  # type: ignore[attr-defined]
    call.__annotations__ = endpoint.__annotations__ | {"sender": gr.Request}
    return call


def _sampling(q: Question) -> Sampling:
    return Sampling(
        temperature=q.number("temperature"),
        top_k=q.whole("top_k", 0, q.served.model.config.vocab_size),
        top_p=q.number("top_p"),
        min_p=q.number("min_p"),
        repetition_penalty=q.number("repetition_penalty"),
    )


def _told(answer: Answer) -> Answer:
    if "error" in answer:
        raise _refusal(answer["error"])
    return answer


def _refusal(error: object) -> gr.Error:
    return gr.Error(str(error), print_exception=False)


def _plain(values: Tensor) -> Any:
    """Nested lists, None for what JSON has no number for."""
    if values.dim() == 0:
        return finite(float(values))
    return [_plain(value) for value in values]
