"""The lens: for one text, where each head looks, what it does there, and why this token.

    seen = lens.trace(model, ids)                 # one forward, everything in it
    lens.roles(tokenizer, seen.ids, seen.attention).label(0, 2)
    lens.logit_lens(model, seen).tokens           # the answer, layer by layer
    lens.attribution(model, seen, token=1234)     # who wrote it

Plain functions from a model, a text or a trace to tensors; every quantity has an oracle or an
identity in tests/ptx/lens.
"""

from ptx.lens.ablation import Ablation, ablate, ablate_batch, single_heads
from ptx.lens.attribution import Attribution, attribution
from ptx.lens.logit_lens import LogitLens, logit_lens
from ptx.lens.roles import (
    ROLES,
    Probe,
    Roles,
    induction_probe,
    reference_roles,
    reference_windows,
    roles,
    together,
)
from ptx.lens.surprise import Surprise, surprise
from ptx.lens.trace import Means, Mute, Trace, attention, means, muted, trace, window
from ptx.lens.views import (
    band,
    quantize,
    row,
    row_without_sink,
    rows,
    thumbnail_side,
    thumbnails,
    to_unit,
    triangle,
    value_weighted,
    without_sink,
)

__all__ = [
    "ROLES",
    "Ablation",
    "Attribution",
    "LogitLens",
    "Means",
    "Mute",
    "Probe",
    "Roles",
    "Surprise",
    "Trace",
    "ablate",
    "ablate_batch",
    "attention",
    "attribution",
    "band",
    "induction_probe",
    "logit_lens",
    "means",
    "muted",
    "quantize",
    "reference_roles",
    "reference_windows",
    "roles",
    "row",
    "row_without_sink",
    "rows",
    "single_heads",
    "surprise",
    "thumbnail_side",
    "thumbnails",
    "to_unit",
    "together",
    "trace",
    "triangle",
    "value_weighted",
    "window",
    "without_sink",
]
