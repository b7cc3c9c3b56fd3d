"""HTML pages from the Jinja2 templates of templates/, with the CSS and JavaScript of web/ inside."""

import base64
import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

WEB = Path(__file__).parent / "web"
PLAYER_SCRIPTS = ("basics.js", "screen.js", "plane.js", "traces.js", "player.js")
"""Files of web/ that define makePlayer. The other scripts of a page follow them."""
TEMPLATES = Path(__file__).parent / "templates"
MEASURES = {
    "ccc": "CCC", "pcc": "Pearson", "rmse": "RMSE", "mse": "MSE", "mae": "MAE", "sign": "SAGR",
}  # fmt: skip


def render(template: str, **values: Any) -> str:
    """The page of this template. All values are escaped; a missing one raises jinja2.UndefinedError."""
    return _environment().get_template(template).render(values)


def assets(*names: str) -> str:
    """The text of these files of web/, joined."""
    return "".join((WEB / name).read_text(encoding="utf-8") for name in names)


def template_texts() -> str:
    """The text of all templates, joined: a part of the fingerprint of each page."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.rglob("*.html")))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "png_url": png_url, "jpeg_url": jpeg_url, "measure_title": measure_title, "number": number, "plain": plain,
        "sortable": sortable,
    }  # fmt: skip
    environment.globals |= {"version": __version__}
    environment.policies["json.dumps_function"] = _json
    environment.policies["json.dumps_kwargs"] = {}
    return environment


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def measure_title(key: str) -> str:
    """`ccc_valence` as "CCC valence", and other keys as words."""
    first, _, rest = key.partition("_")
    return f"{MEASURES.get(first, first)} {rest.replace('_', ' ')}".strip()


def plain(value: Any) -> str:
    """A setting or a number as text."""
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    return "–" if value is None else f"{value:,}" if type(value) is int else str(value)


def number(value: Any, places: int) -> str:
    """With this many decimal places; a dash where there is no finite number."""
    return f"{value:,.{places}f}".replace("-", "−") if isinstance(value, int | float) and math.isfinite(value) else "–"


def sortable(value: Any) -> str:
    """The number that web/tables.js sorts by; empty where there is none."""
    return f"{value:.9g}" if isinstance(value, int | float) and math.isfinite(value) else ""


def png_url(path: Path) -> str:
    """A PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def jpeg_url(picture: NDArray[np.uint8]) -> str:
    """A picture, uint8 [h, w, 3] RGB, as a data URL."""
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
