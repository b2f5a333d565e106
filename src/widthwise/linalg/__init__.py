"""Numbers only, tensors in and tensors out; knows nothing of networks."""
