"""Training data and objective of the STN."""
