"""One training run: splits, networks, fitting, its folder, its model card."""
