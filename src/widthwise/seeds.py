"""Every random stream, by name: nothing in Widthwise reads or sets a global seed."""

import hashlib

import torch


def stream(seed: int, *names: str | int) -> torch.Generator:
    """Return the CPU generator of one purpose, such as `stream(3, "order", epoch)`.

    Streams of different names are independent, and each is the same on every machine; a stream that is
    named by its epoch or step needs no state in a checkpoint.
    """
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
