"""Decodes videos to numbered frames. Only this folder imports decord."""
