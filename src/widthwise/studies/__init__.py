"""What to train and compare: each file but base.py is one study, by its name."""
