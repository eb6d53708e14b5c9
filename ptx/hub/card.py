"""The card of a model repository: what its files say, in the words of huggingface_hub's cards."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Any

from ptx import runlog
from ptx.checkpoint import read_config
from ptx.errors import UserError
from ptx.hub.curve import curves, draw, is_number

CURVE = "curve.png"
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
SECTION = re.compile(r"^## From the Hub\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
TEMPLATE = Path(__file__).with_name("card.md")
SIDES = {"test": "test", "val": "validation"}
FIGURES = {"model_name", "eval_results", "model-index"}
"""Fields of a card's head that say how good the model is: never those of an earlier one."""
LIBRARY = "p-transformer"
TAGS = ["python", "code-generation", LIBRARY, "from-scratch"]


def write_card(folder: Path, name: str) -> None:
    """README.md, and a picture of the training curve, for the model directory `folder` that goes to
    the Hub as `name`. A card that is there keeps its words: its head and one section are set anew.
    """
    config = read_config(folder)
    path, records = folder / "README.md", []
    if (folder / runlog.METRICS).is_file():
        records, _ = runlog.tail(folder / runlog.METRICS)
    picture = draw(records)
    if picture is not None:
        picture.save(folder / CURVE)
    try:
        text = path.read_text("utf-8") if path.is_file() else plain_card(name, config, records)
    except UnicodeDecodeError:
        raise UserError("README.md is not UTF-8: save it in that encoding") from None
    path.write_text(card(text, name, config["info"], picture is not None), "utf-8")


def card(text: str, name: str, info: dict[str, Any], curve: bool) -> str:
    """`text`, a card, as the repository `name` shows it."""
    body = FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    section = Template(TEMPLATE.read_text("utf-8").split("<!-- section -->\n")[1]).substitute(
        name=name,
        short=name.rpartition("/")[2],
        curve=f"![Bits per byte over minutes of training]({CURVE})\n\n" if curve else "",
    )
    body = SECTION.sub("", body)
    head, heading, rest = body.partition("\n## ")
    body = f"{head.rstrip()}\n\n{section.rstrip()}\n{heading}{rest}"
    return f"---\n{card_data(text, name, info).to_yaml()}\n---\n{body}"


def card_data(text: str, name: str, info: dict[str, Any]) -> Any:
    """The card's head: what `text` had, completed by the facts that are known."""
    import yaml
    from huggingface_hub import EvalResult, ModelCardData

    match = FRONT_MATTER.match(text.replace("\r\n", "\n"))
    try:
        had = yaml.safe_load(match[1]) if match else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a 13th month, a thousand [
        where = str(error).replace("\n", " ")
        raise UserError(f"README.md does not begin with readable YAML: {where}") from None
    had = had if isinstance(had, dict) else {}
    had = {key: value for key, value in had.items() if isinstance(key, str) and key not in FIGURES}
    fixed: dict[str, Any] = {"library_name": LIBRARY}
    if imported := info.get("imported_from"):
        usual: dict[str, Any] = {"pipeline_tag": "text-generation", "tags": [LIBRARY]}
        fixed["base_model"] = imported
    else:
        usual = {"pipeline_tag": "text-generation", "tags": TAGS, "language": "code",
                 "license": "mit"}  # fmt: skip
    if dataset := info.get("dataset"):
        fixed["datasets"] = [dataset]
    measured = {side: info.get(f"{side}_bpb") for side in SIDES}
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=str(info.get("dataset", "held-out-projects")),
            dataset_name="Python of projects it never saw",
            dataset_split=SIDES[side],
            metric_type="bits_per_byte",
            metric_name="bits per byte",
            metric_value=bpb,
        )
        for side, bpb in measured.items()
        if is_number(bpb)
    ]
    data = ModelCardData(model_name=name.rpartition("/")[2], eval_results=results or None)
    for field, value in {**usual, **had, **fixed}.items():  # as arguments, some names would clash
        data[field] = value
    return data


def plain_card(name: str, config: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The card of a model that was never released: its shape, and what was logged."""
    shape, info = config["model"], config["info"]
    _, logged = curves(records)
    facts = {key: value for key, value in info.items() if isinstance(value, str | int | float)}
    if logged:
        facts["validation, bits per byte, as logged in training"] = round(logged[-1][1], 4)
    return Template(TEMPLATE.read_text("utf-8").split("<!-- section -->\n")[0]).substitute(
        short=name.rpartition("/")[2],
        layers=shape["n_layer"],
        heads=shape["n_head"],
        width=shape["d_model"],
        context=shape["context"],
        tokenizer=config["tokenizer"]["name"],
        vocabulary=f"{shape['vocab_size']:,}",
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
    )
