"""Who does what a study still lacks: each file but base.py is one executor, by its name."""
