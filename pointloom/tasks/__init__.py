"""Downstream protocols, one per file."""
