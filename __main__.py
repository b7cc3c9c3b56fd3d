"""python -m affect."""

from .cli import app

app()
