"""Pieces of the report's page: numbers, lists of facts, pictures as data, what scrolls in itself."""

import base64
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEASURES = {
    "ccc": "CCC", "pcc": "Pearson", "rmse": "RMSE", "mse": "MSE", "mae": "MAE", "sign": "SAGR",
}  # fmt: skip


WEB = Path(__file__).parent / "web"

POLICY = (
    "default-src 'none'; img-src data:; media-src blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""Of a page: nothing but what it carries itself."""


def assets(*names: str) -> str:
    """The texts of these files of web/, one after the other."""
    return "".join((WEB / name).read_text(encoding="utf-8") for name in names)


def whole_page(title: str, body: str, *, style: str, script: str) -> str:
    """A page that needs no other file and no network, around this body."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)} · affect</title><link rel="icon" href="data:,">\n<style>{style}</style></head>\n'
        f"<body>{body}<script>{script}</script></body></html>\n"
    )


def scroll(inner: str, label: str) -> str:
    """What may be wider than a phone scrolls in itself, by keyboard too."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{escape(label)}">{inner}</div>'


def absent(text: str) -> str:
    before, colon, command = text.partition("Run: ")
    code = f"Make it with <code>{escape(command)}</code>" if colon else ""
    return f'<p class="missing">{escape(before)}{code}</p>'


def facts_list(values: Mapping[str, Any], changed: Iterable[str] = (), *, plain: bool = False) -> str:
    """Names and values; the changed ones bold. plain: names as they are, not made readable."""
    marked = set(changed)
    rows = "".join(
        f"<div{' class=changed' if key in marked else ''}><dt>{escape(str(key) if plain else _title(str(key)))}</dt>"
        f"<dd>{escape(_plain(it))}</dd></div>"
        for key, it in values.items()
    )
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _title(key: str) -> str:
    first, _, rest = key.partition("_")
    return f"{MEASURES.get(first, first)} {rest.replace('_', ' ')}".strip()


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return "–" if value is None else f"{value:,}" if type(value) is int else str(value)


def number(value: Any, places: int) -> str:
    return f"{value:,.{places}f}".replace("-", "−") if isinstance(value, int | float) and math.isfinite(value) else "–"


def raw(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, int | float) and math.isfinite(value) else ""


def data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def jpeg_url(picture: NDArray[np.uint8]) -> str:
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise ValueError(f"a picture of {picture.shape} cannot be encoded")
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
