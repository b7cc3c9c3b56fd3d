"""Commands that look after a work folder."""

from typing import Annotated

import typer

from .session import Session, stage_command


def register(app: typer.Typer, panel: str) -> None:
    """Adds the commands to the app."""

    @stage_command(app, "verify", panel=panel, example="affect verify --work work", lock="none")
    def verify(
        here: Session,
        remove: Annotated[
            bool, typer.Option("--remove", help="Delete damaged shards and weights: their stages make them again.")
        ] = False,
    ) -> None:
        """Read all shards, weights and runs against their checksums, and name each fault with its remedy."""
        from .pipeline.stages.verify import verify

        if remove:
            here.lock()
        here.stage(verify, here.work, remove=remove)
