"""Versions to record in a file. Reads the metadata of installed packages without importing them."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """Versions of affect, Python, the operating system, and of the given packages that are installed."""
    from ..version import __version__

    found = {name: own for name in packages if (own := _version(name)) is not None}
    system = f"{platform.system()} {platform.machine()}"
    return {"affect": __version__, "python": platform.python_version(), "system": system, **found}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
