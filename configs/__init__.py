"""Settings: the schema with every default, and the shipped experiments."""
