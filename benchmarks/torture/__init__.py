"""Damages inputs and kills runs, for the figures of docs/reliability.md. Run: make torture"""
