"""What a study is: which networks to compare, and what the comparisons say of the paper's findings.

A member is a file with

    comparisons(design, scores, *, option=default, ...) -> Iterable[Comparison]
        what it needs, given the scores so far; asked again until nothing is missing, so that a later phase
        can depend on the scores of an earlier one
    rows(design, scores, *, the same options) -> list[Row]
        its table, gaps and verdicts among it: differences of stored scores
    findings(design, scores, *, the same options) -> list[Finding]
        its claims in words
    errors(design, scores, *, the same options) -> list[FeatureErrors]
        what a report shows feature by feature

All are pure: no disk, no torch networks, no training.
"""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from widthwise import config, family
from widthwise.design import Comparison, Design, Scores
from widthwise.results import FeatureErrors, Finding, Row


def comparisons(design: Design, scores: Scores) -> list[Comparison]:
    """Return all that the studies of a file want, given the scores so far, each once, in their order."""
    wanted: dict[Comparison, None] = {}
    for member, options in _members(design.study):
        wanted.update(dict.fromkeys(member.comparisons(design, scores, **options)))
    return list(wanted)


def missing(design: Design, scores: Scores) -> list[Comparison]:
    """Return the comparisons that have no score yet; nothing when every study has all it needs."""
    return [comparison for comparison in comparisons(design, scores) if comparison not in scores]


def rows(design: Design, scores: Scores) -> list[Row]:
    """Return the tables of all studies of a file, in their order."""
    return [row for member, options in _members(design.study) for row in member.rows(design, scores, **options)]


def findings(design: Design, scores: Scores) -> list[Finding]:
    """Return the claims of all studies of a file, the primary one first, the others in their order."""
    found = [f for member, options in _members(design.study) for f in member.findings(design, scores, **options)]
    told = [replace(f, primary=f.study == design.study.primary.study) for f in found]
    return sorted(told, key=lambda f: not f.primary)


def errors(design: Design, scores: Scores) -> list[FeatureErrors]:
    """Return the per-feature errors that the studies of a file show, in their order."""
    return [e for member, options in _members(design.study) for e in member.errors(design, scores, **options)]


def _members(study: config.Study) -> Iterator[tuple[ModuleType, dict[str, Any]]]:
    for choice in study.studies:
        yield family.member("studies", choice.kind), choice.options
