"""Runs a trained model on video: offline, streaming, tracking, traces, tables. The only inference path."""
