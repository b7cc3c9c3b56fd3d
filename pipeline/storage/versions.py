"""What a file was made with, to be recorded in it. Reads installed packages' names, imports none of them."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """The versions of affect, Python, the system, and of those packages that are installed."""
    from ... import __version__

    found = {name: own for name in packages if (own := _version(name)) is not None}
    system = f"{platform.system()} {platform.machine()}"
    return {"affect": __version__, "python": platform.python_version(), "system": system, **found}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
