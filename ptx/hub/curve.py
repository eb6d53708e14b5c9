"""A run's training curve as a picture for its card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

WIDTH, HEIGHT = 1440, 720
LEFT, RIGHT, TOP, BOTTOM = 110, 40, 60, 100
INK, FAINT, TRAIN, VALIDATION = "#18181b", "#e4e4e7", "#a5b4fc", "#4f46e5"
SMOOTHING = 0.9
"""Share of the past in the training line, which is noisy from batch to batch."""

Points = list[tuple[float, float]]


def curves(records: list[dict[str, Any]]) -> tuple[Points, Points]:
    """(minutes, bits per byte) of training, smoothed, and of validation. What is no number in the
    records, which anybody may have written, is passed over."""
    train: Points = []
    validation: Points = []
    mean = None
    for r in records:
        elapsed, bpb = r.get("elapsed", 0), r.get("val_bpb", r.get("bpb"))
        if not (is_number(elapsed) and is_number(bpb)):
            continue
        if "val_bpb" in r:
            validation.append((elapsed / 60, bpb))
        else:
            mean = bpb if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * bpb
            train.append((elapsed / 60, mean))
    return train, validation


def is_number(value: object) -> bool:
    """Whether a JSON value is a number, and finite."""
    return type(value) in (int, float) and abs(value) < 1e12  # type: ignore[operator]


def draw(records: list[dict[str, Any]]) -> Image.Image | None:
    """The curves over minutes of training; None if nothing was validated."""
    from PIL import Image, ImageDraw, ImageFont

    train, validation = curves(records)
    if not validation:
        return None
    highest = max(y for _, y in validation)
    train = [p for p in train if p[1] <= highest]  # the first steps are far above all others
    points = train + validation
    xs = _ticks(0, max(x for x, _ in points))
    ys = _ticks(min(y for _, y in points), highest)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(24)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0] or 1)
        up = (y - ys[0]) / (ys[-1] - ys[0] or 1)
        return LEFT + across * (right - LEFT), bottom - up * (bottom - TOP)

    for y in ys:
        at = place(0, y)[1]
        pen.line([(LEFT, at), (right, at)], FAINT, 2)
        pen.text((LEFT - 14, at), f"{y:g}", INK, font, anchor="rm")
    for x in xs:
        pen.text((place(x, 0)[0], bottom + 16), f"{x:g}", INK, font, anchor="mt")
    pen.text(((LEFT + right) / 2, HEIGHT - 14), "minutes of training", INK, font, anchor="mb")
    pen.text((LEFT, TOP - 14), "bits per byte; pale: training, smoothed", INK, font, anchor="lb")
    pen.text((right, TOP - 14), f"validation windows, last logged: {validation[-1][1]:.3f}",
             VALIDATION, font, anchor="rb")  # fmt: skip
    if len(train) > 1:
        pen.line([place(*p) for p in train], TRAIN, 3, joint="curve")
    if len(validation) > 1:
        pen.line([place(*p) for p in validation], VALIDATION, 5, joint="curve")
    for p in validation:
        x, y = place(*p)
        pen.ellipse([x - 6, y - 6, x + 6, y + 6], VALIDATION)
    return image


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around [low, high], about six."""
    rough = max(high - low, 1e-9) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
