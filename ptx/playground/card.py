"""Model: which one is on the page, what it is in figures, and the words of its card."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from ptx.checkpoint import WEIGHTS, log_folder, run_of
from ptx.errors import UserError
from ptx.model import GPT
from ptx.playground.answers import clean
from ptx.playground.models import FIRST, Models
from ptx.playground.runs import Runs
from ptx.playground.served import Served
from ptx.playground.web import panel

# Facts of config.json that have a better name than their own; the others are shown as they are.
NAMES = {
    "val_bpb": "held-out packages, bits per byte",
    "test_bpb": "test packages, bits per byte",
    "val_tokens_per_project": "tokens scored of each package",
    "step": "training steps",
    "steps": "training steps",
    "tokens": "training tokens",
    "seconds": "training seconds",
    "hours": "training hours",
    "cpu_hours": "CPU hours of training",
    "cpu_seconds": "CPU seconds of training",
}
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
JOINER = "\u2060"
MERMAID = re.compile("(mer)(maid)", re.IGNORECASE)


def describe(models: Models, runs: Runs, request: Any) -> dict[str, Any]:
    """All that the page says about a model, for `{"model": key}` from any client; or {"error":
    sentence}, because the browser never learns of an exception. "key" goes on to mean this one
    checkpoint of a run."""
    try:
        key = models.pin(request.get("model") if isinstance(request, dict) else None)
        served = models.get(key)
    except UserError as error:
        return {"error": str(error)}
    config = served.model.config
    return {
        "model": {
            "key": key,
            "name": served.name,
            "context": config.context,
            "layers": config.n_layer,
            "heads": config.n_head,
            "vocab": config.vocab_size,
            "eot": served.tokenizer.eot,
        },
        "path": models.path_to(key),
        **listing(models),
        "summary": summary(served),
        "facts": facts(served),
        "parts": parts(served.model),
        "curve": curve(served, runs),
        "memory": memory(served),
    }


def listing(models: Models) -> dict[str, Any]:
    """What there is to choose from."""
    return {"models": models.listing(), "hub": models.limits.hub}


def curve(served: Served, runs: Runs) -> dict[str, Any] | None:
    """{"train", "val"} of the model's own training, as `History.since`; None without a log."""
    if not (folder := log_folder(served.directory)):
        return None
    found = runs.whole(folder)
    wanted = {"train": ("step", "bpb"), "val": ("step", "val_bpb")}
    return {part: {n: found[part][n] for n in names} for part, names in wanted.items()}


def parts(model: GPT) -> list[dict[str, Any]]:
    """Parameters by what they do, in the order in which a token meets them."""
    config = model.config
    sizes = {"embedding": 0, "attention": 0, "MLP": 0, "norms": 0, "head": 0}
    for name, weight in model.named_parameters():  # a tied head is not named twice
        sizes[_part(name)] += weight.numel()
    notes = {
        "embedding": f"a vector of {config.d_model} for each of {config.vocab_size:,} tokens",
        "attention": f"{config.n_layer} × {config.n_head} heads",
        "MLP": f"{config.n_layer} × {config.d_model} → {config.d_mlp} → {config.d_model}",
        "norms": "",
        "head": "the embedding again, read backwards" if config.tied_head else "",
    }
    return [{"name": name, "size": size, "note": notes[name]} for name, size in sizes.items()]


def _part(name: str) -> str:
    if name.startswith(("tok_emb", "pos_emb")):
        return "embedding"
    if ".attn." in name and "norm" not in name:
        return "attention"
    if ".mlp." in name:
        return "MLP"
    return "head" if name.startswith("head") else "norms"


def memory(served: Served) -> list[list[str]]:
    """[what, bytes] of what this model takes."""
    config, weights = served.model.config, served.model.tok_emb.weight
    position = 2 * config.n_layer * config.n_kv_head * config.head_size * weights.element_size()
    try:
        size = (served.directory / WEIGHTS).stat().st_size
    except OSError:  # a checkpoint that its run has not kept
        on_disk = []
    else:
        on_disk = [["weights on disk", _mebibytes(size)]]
    return [
        *on_disk,
        ["weights in memory", _mebibytes(served.model.n_params() * weights.element_size())],
        [f"keys and values of a text of {config.context}", _mebibytes(position * config.context)],
    ]


def facts(served: Served) -> list[list[str]]:
    """[name, value] of everything worth knowing, for the page's header and the Model tab."""
    config = served.model.config
    rows: list[tuple[str, Any]] = [
        ("parameters", served.model.n_params()),
        ("context", config.context),
        ("vocabulary", f"{config.vocab_size:,} ({served.tokenizer.name})"),
        ("layers × heads", f"{config.n_layer} × {config.n_head}"),
        ("width", config.d_model),
    ]
    rows += [
        (NAMES.get(name, name.replace("_", " ")), value) for name, value in served.info.items()
    ]
    return [[name, _shown(value)] for name, value in rows if isinstance(value, str | int | float)]


def summary(served: Served) -> list[str]:
    """The few facts that stand beside the title."""
    config = served.model.config
    parts = [
        served.name,
        f"{_millions(served.model.n_params())} parameters",
        f"context {config.context}",
        f"vocabulary {config.vocab_size:,}",
    ]
    bpb = served.info.get("test_bpb", served.info.get("val_bpb"))  # as the card has it
    if isinstance(bpb, int | float):
        parts.append(f"{bpb:.3f} bits per byte of unseen code (lower is better)")
    return parts


def card(served: Served) -> str:
    """The model card as Markdown that cannot load anything from elsewhere; that of its run, if it
    is a checkpoint of one."""
    own = served.directory / "README.md"
    run = run_of(served.directory)
    try:
        path = run / "README.md" if run and not own.is_file() else own
        text = path.read_text("utf-8", "replace")
    except OSError:
        return "This model has no card (`README.md` in its directory)."
    return harmless(FRONT_MATTER.sub("", text.replace("\r\n", "\n")))


def harmless(markdown: str) -> str:
    """Markdown that cannot make a browser fetch or run anything: an invisible word joiner breaks
    the beginnings of HTML tags, of images and of diagrams, wherever they stand."""
    text = markdown.replace("\r", "\n").replace("<", f"<{JOINER}").replace("![", f"!{JOINER}[")
    return MERMAID.sub(rf"\1{JOINER}\2", text)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.1f}B"


def _shown(value: str | int | float) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return clean(str(value))


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def build(models: Models, header: gr.HTML) -> None:
    """The Model tab; `header` tells when another model was chosen."""
    panel("model")
    text = gr.Markdown(card(models.first), elem_id="card", sanitize_html=True, latex_delimiters=[])

    def on_choice(event: gr.EventData) -> str:
        try:
            return card(models.get(getattr(event, "key", FIRST)))
        except UserError as error:
            return harmless(str(error))

    # "multiple": a second choice is not skipped while the card of the first is on its way
    header.select(
        on_choice,
        None,
        text,
        show_progress="hidden",
        trigger_mode="multiple",
        api_visibility="private",
    )


def build_header(models: Models, runs: Runs) -> gr.HTML:
    """The title, the choice of the model, light or dark."""

    def describe_model(request: Any) -> dict[str, Any]:
        return describe(models, runs, request)

    def list_models(request: Any) -> dict[str, Any]:
        return listing(models)

    return panel("header", describe_model({"model": FIRST}), [describe_model, list_models])
