"""Facts as lines of text."""

from widthwise import words


def test_facts_are_lines_without_what_is_not_known():
    given = {
        "mean": 0.123456,
        "limits": {"richardson": 0.5, "aitken": None},
        "loss": [2.30258, 1.0],
        "widths": ("1", "1/2"),
        "none": None,
    }
    assert words.facts(given).splitlines() == [
        "  mean  0.1235",
        "limits  richardson 0.5",
        "  loss  2.303, 1",
        "widths  1, 1/2",
    ]
