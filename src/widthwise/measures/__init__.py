"""What is asked of a pair: each file but base.py is one measure, by its name."""
