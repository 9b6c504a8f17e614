"""Params without aliases say the same, and a change of one value changes no other."""

import itertools

import pytest
import yaml

from pointloom.plain_yaml import without_aliases
from pointloom.workspace import PIPELINES, PROFILES, template


@pytest.mark.parametrize(("pipeline", "profile"), itertools.product(PIPELINES, PROFILES))
def test_profiles_mean_the_same_and_keep_their_comments(pipeline: str, profile: str) -> None:
    text = template(f"profiles/{pipeline}/{profile}.yaml")
    plain = without_aliases(text)
    assert yaml.safe_load(plain) == yaml.safe_load(text)
    assert [line.partition("#")[2] for line in plain.splitlines()] == [
        line.partition("#")[2] for line in text.splitlines()
    ]
    events = list(yaml.parse(plain))
    assert not [event for event in events if getattr(event, "anchor", None)]


def test_blocks_lines_and_single_values_are_written_out() -> None:
    text = (
        "a:\n  one: &one  # first\n    x: 1\n    y: [a, b]\n  two: &two {z: 0.5}\n  name: &name yes\nb:\n"
        "  one: *one  # again\n  list: [*two, *name]\n  after: *two\n"
    )
    assert without_aliases(text) == (
        "a:\n  one:  # first\n    x: 1\n    y: [a, b]\n  two: {z: 0.5}\n  name: yes\nb:\n"
        "  one: {x: 1, y: [a, b]}  # again\n  list: [{z: 0.5}, true]\n  after: {z: 0.5}\n"
    )
    assert without_aliases("a: 1  # &none *none\n") == "a: 1  # &none *none\n"
