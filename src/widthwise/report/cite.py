"""How to cite the paper and Widthwise: BibTeX and RIS."""

PAPER = """\
@article{duzgun2024overparameterization,
  title   = {How does overparameterization affect features?},
  author  = {Duzgun, Ahmet Cagri and Jelassi, Samy and Li, Yuanzhi},
  journal = {arXiv preprint arXiv:2407.00968},
  year    = {2024}
}
"""
TOOL = """\
@software{widthwise,
  title   = {Widthwise: what wide networks know that many narrow ones do not},
  author  = {{The Widthwise developers}},
  version = {VERSION},
  year    = {2026}
}
"""
RIS = """\
TY  - JOUR
TI  - How does overparameterization affect features?
AU  - Duzgun, Ahmet Cagri
AU  - Jelassi, Samy
AU  - Li, Yuanzhi
JO  - arXiv preprint arXiv:2407.00968
PY  - 2024
UR  - https://arxiv.org/abs/2407.00968
ER  -

TY  - COMP
TI  - Widthwise: what wide networks know that many narrow ones do not
AU  - The Widthwise developers
ET  - VERSION
PY  - 2026
ER  -
"""


def bibtex(version: str) -> str:
    """Return both entries for BibTeX."""
    return f"{PAPER}\n{TOOL}".replace("VERSION", version)


def ris(version: str) -> str:
    """Return both entries for a reference manager."""
    return RIS.replace("VERSION", version)
