"""What runs: one module a command."""
