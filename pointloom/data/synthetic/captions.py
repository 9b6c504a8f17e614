"""Natural sentences and attribute words from a blueprint."""

from __future__ import annotations

from pointloom.data.synthetic.blueprint import Blueprint
from pointloom.data.synthetic.draw import Draw

NAMED = (
    "{a:color} {color} {name}",
    "{a:material} {material} {name}{with_features}",
    "{a:name} {name} in {color}{with_feature}",
    "this {name} is {color} and made of {noun}",
    "{a:look} {look} {name} made of {noun}",
    "{a:look} {look}, {color} {name}{with_feature}",
    "a 3D model of {a:material} {material} {name}{with_features}",
    "the {name} is {look}{and_has}",
)
UNNAMED = (
    "{a:look} {look} {hypernym} in {color}{with_features}",
    "{a:color} {color} {hypernym} made of {noun}{with_feature}",
    "{a:material} {material} {hypernym}, {look} and {color}{with_feature}",
)
NUM_NAMED = 4


def attributes(plan: Blueprint) -> tuple[str, ...]:
    """Return the object's attribute words: material, colour, shape and features, without articles."""
    features = (feature.removeprefix("a ").removeprefix("an ") for feature in plan.features)
    return tuple(dict.fromkeys((plan.finish.adjective, plan.finish.color, *plan.looks, *features)))


def captions(plan: Blueprint, draw: Draw) -> tuple[str, ...]:
    """Return five different sentences; the last names neither the category nor the object."""
    templates = [*draw.shuffled(NAMED)[:NUM_NAMED], draw.choose(UNNAMED)]
    return tuple(_fill(template, plan, draw) for template in templates)


def _fill(template: str, plan: Blueprint, draw: Draw) -> str:
    features = draw.shuffled(plan.features)
    looks = [look for look in plan.looks if look not in plan.name.split()]
    words = {
        "name": plan.name,
        "hypernym": plan.hypernym,
        "color": plan.finish.color,
        "material": plan.finish.adjective,
        "noun": plan.finish.material,
        "look": draw.choose(looks) if looks else "simple",
        "with_feature": f" with {features[0]}" if features else "",
        "with_features": " with " + " and ".join(features[:2]) if features else "",
        "and_has": f" and has {features[0]}" if features else "",
    }
    for key in ("name", "color", "material", "look"):
        template = template.replace(f"{{a:{key}}}", "an" if words[key][0] in "aeiou" else "a")
    return template.format(**words)
