"""Frozen models whose features the encoder is aligned with."""
