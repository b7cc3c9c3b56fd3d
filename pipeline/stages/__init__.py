"""The stages: one module per command, named as the command."""
