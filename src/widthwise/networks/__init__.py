"""Architectures: each file but base.py is one, and its name is the name a user types."""
