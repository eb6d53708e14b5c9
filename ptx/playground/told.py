"""How what was found about a position is told: in JSON, bytes in base64."""

from __future__ import annotations

from base64 import b64encode
from math import isfinite, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptx import lens
from ptx.playground.served import Served
from ptx.playground.traces import Seen
from ptx.sampling import CUT, Choice
from ptx.tokenizer import Tokenizer

SHARP = 256
"""The likeliest tokens, whose logits are told exactly and whose texts are told."""
LEVELS = 2**16 - 2
"""The largest code of a logit; codes are 0 to 65,534, and 65,535 is minus infinity."""
BITS = 1 / log(2)

Answer = dict[str, Any]


def name_of(tokenizer: Tokenizer, token: int) -> str:
    """A token in a list: its text, or bytes as Python writes them if they are no characters."""
    if token == tokenizer.eot:
        return "⟨end⟩"
    data = tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return repr(data)


def named(tokenizer: Tokenizer, token: int) -> Answer:
    return {"id": token, "text": name_of(tokenizer, token)}


def of_token(tokenizer: Tokenizer, choice: Choice, token: int | None) -> Answer:
    if token is None:
        return dict.fromkeys(("token", "text", "prob", "bits", "rank"))
    logprob = choice.logprob(token)
    return {
        "token": token,
        "text": name_of(tokenizer, token),
        "prob": float(choice.raw[token]),
        "bits": finite(-logprob * BITS),
        "rank": choice.rank(token),
    }


def row_of(seen: Seen, at: int) -> Tensor:
    """(L, H, at - start): nothing of what the likeliest way through an open end has not read."""
    row = seen.trace.attention[:, :, seen.query, : seen.size]
    return F.pad(row, (0, at - seen.end))


def all_logits(logits: Tensor) -> Answer:
    """(V,) in two bytes each: the error of a probability is far below what a page can show."""
    possible = logits > CUT
    low, high = (float(x) for x in logits[possible].aminmax())
    step = (high - low) / LEVELS or 1.0
    codes = torch.where(possible, ((logits - low) / step).round(), LEVELS + 1)
    return {"low": low, "step": step, "logits": base64(codes.numpy().astype("<u2").tobytes())}


def likeliest(tokenizer: Tokenizer, logits: Tensor) -> Answer:
    most = min(SHARP, int((logits > CUT).sum()))
    found = logits.topk(most)
    ids = found.indices.numpy()
    return {
        "sharp": {
            "ids": base64(ids.astype("<i4").tobytes()),
            "logits": base64(found.values.numpy().astype("<f4").tobytes()),
        },
        "names": [name_of(tokenizer, token) for token in ids.tolist()],
    }


def layers_of(tokenizer: Tokenizer, found: lens.LogitLens) -> Answer:
    return {
        "tokens": [
            [named(tokenizer, token) | {"p": p} for token, p in zip(*layer)]
            for layer in zip(found.tokens.tolist(), found.probs.tolist())
        ],
        "prob": found.prob.tolist(),
        "rank": found.rank.tolist(),
        "followed": named(tokenizer, found.token),
    }


def parts_of(served: Served, seen: Seen, token: int, against: int) -> Answer:
    found = lens.attribution(served.model, seen.trace, token, against, seen.query)
    return {
        "token": named(served.tokenizer, token),
        "against": named(served.tokenizer, against),
        "embedding": float(found.embedding),
        "heads": found.heads.tolist(),
        "mlps": found.mlps.tolist(),
        "biases": float(found.biases),
        "total": float(found.total),
    }


def role_of(roles: lens.Roles, here: Tensor, layer: int, head: int) -> Answer:
    label = roles.label(layer, head)
    if label in lens.ROLES:
        i = lens.ROLES.index(label)
        return {"label": label, "score": float(roles.lift()[i, layer, head]), "here": bool(here[i])}
    score = float(roles.sink[layer, head]) if label else 0.0
    return {"label": label, "score": score, "here": bool(here[-1])}


def grid(values: list[Any], columns: int) -> list[list[Any]]:
    return [values[i : i + columns] for i in range(0, len(values), columns)]


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if isfinite(value) else None


def base64(data: bytes) -> str:
    return b64encode(data).decode()
