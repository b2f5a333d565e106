"""What the paper's text publishes in numbers: facts to stand beside ours, never mixed with them.

Duzgun, Jelassi, Li (2024), arXiv 2407.00968. The symbols in the headers of its tables are lost in our copy of the
text: how each column is read is said where it stands. Of Table 2 and of the figures, the text gives no values.
"""

TABLES_4_5 = {  # FSE: another wide network, then narrow ones together at 1/2, 1/4, 1/8, 1/16
    ("4", "regular", "validation"): (0.0236, 0.0201, 0.0327, 0.0967, 0.1885),
    ("4", "regular", "test"): (0.0505, 0.0410, 0.0607, 0.1212, 0.1845),
    ("4", "shuffled", "validation"): (0.0279, 0.0234, 0.0372, 0.1004, 0.1871),
    ("4", "shuffled", "test"): (0.0281, 0.0236, 0.0376, 0.1020, 0.1908),
    ("5", "regular", "validation"): (0.0084, 0.0079, 0.0143, 0.0734, 0.2116),
    ("5", "regular", "test"): (0.0694, 0.0508, 0.0658, 0.1134, 0.2090),
    ("5", "shuffled", "validation"): (0.0168, 0.0145, 0.0224, 0.0791, 0.2101),
    ("5", "shuffled", "test"): (0.0170, 0.0148, 0.0236, 0.0833, 0.2124),
}
VISION = ("resnet18", "vgg16")  # of Tables 4 and 5; the text does not say which is which
TABLE_3 = {  # accuracy, by the statistic that it is of in the study of residuals
    "transformer": (0.3147, 0.4698, 0.5097, 0.5137),
    "resnet18": (0.1779, 0.3430, 0.5346, 0.2873),
    "vgg16": (0.4005, 0.4748, 0.5642, 0.1903),
}
TABLE_3_WIDTH = {"transformer": "1/8", "resnet18": "1/16", "vgg16": "1/16"}
TABLE_3_ROWS = ("wide_untrained", "wide_residuals_alone", "narrow_untrained", "narrow_residuals_alone")
MATCHING = {  # m by parameters, by width
    "resnet18": {"1/2": 4, "1/4": 16, "1/8": 64, "1/16": 251},
    "vgg16": {"1/2": 4, "1/4": 16, "1/8": 64, "1/16": 254},
    "transformer": {"1/2": 4, "1/4": 15, "1/8": 59},
}
OUTLIERS = (12, 5120)  # features with a test error above 5, of all; untrained VGG-16
WIDTHS = ("1", "1/2", "1/4", "1/8", "1/16")
