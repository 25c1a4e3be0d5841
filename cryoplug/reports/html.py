"""A page in one file: template, style, scripts and data together, so that it opens from a disk without a network.

Names of files may be hostile. jinja2 escapes everything that templates show. Data for the scripts are JSON in which ``<``,
``>`` and ``&`` are escaped. A policy in the page allows only cryoplug's own script to run, recognised by its hash.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import cryoplug
from cryoplug.core.printable import printable_name
from cryoplug.disk.atomic import write_bytes

SCRIPTS = ("table.js", "viewer.js", "live.js", "page.js")
"""Scripts of a page, in this order; the last one starts the others."""


def render(template: str, *, title: str, data: Mapping[str, Any] | None = None, **context: Any) -> str:
    """Fill a template.

    Parameters
    ----------
    template
        Name of a file in ``templates``, without ``.html``.
    title
        Title of the window.
    data
        Data for the scripts, in plain JSON types; numbers that are not finite become null.
    context
        Values for the template. Strings are escaped; `Picture` and SVG from `cryoplug.reports.svg` are inserted unchanged.
    """
    script = "\n".join(_asset(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = (
        _environment()
        .get_template(f"{template}.html")
        .render(
            title=title,
            style=_markup(_asset("style.css")),
            script=_markup(script),
            script_hash=digest,
            data=_markup(json_in_page(data or {})),
            version=cryoplug.__version__,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            **context,
        )
    )
    return text.encode("utf-8", "replace").decode()


def write_page(path: Path, text: str) -> None:
    """Write a page atomically.

    Raises
    ------
    StorageError
        The system refuses.
    """
    write_bytes(path, text.encode("utf-8", "replace"))


def json_in_page(value: Any) -> str:
    """Write JSON that is safe inside a script element: plain ASCII, no ``<``, ``>`` or ``&``, only finite numbers."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(payload: bytes, kind: str = "image/jpeg") -> str:
    """Give a data URI, an address that contains the file itself."""
    return f"data:{kind};base64,{base64.b64encode(payload).decode()}"


def shown_number(value: Any, digits: int = 4) -> str:
    """Write a number for people; a dash if there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}"


def shown_setting(value: Any) -> str:
    """Write the value of a setting: ``yes``, ``1.3``, ``cuda``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown_duration(seconds: float) -> str:
    """Write a time as people say it: ``41 s``, ``12 min 5 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, word: str, plural: str | None = None) -> str:
    """Write a number with its noun: ``1 micrograph``, ``1,200 micrographs``."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cryoplug.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": printable_name,
        "number": shown_number,
        "duration": shown_duration,
        "data_uri": data_uri,
        "svg": _markup,
    }
    return environment


@functools.cache
def _asset(name: str) -> str:
    return (files("cryoplug.reports") / "templates" / name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
