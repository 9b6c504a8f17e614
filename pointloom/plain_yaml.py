"""YAML without aliases: every value stands where it is used, so that a change of one changes no other."""

import re

import yaml


def without_aliases(text: str) -> str:
    """Write the value of every alias (``*name``) in its place, in one line, and take the anchors (``&name``) out.

    ``dvc exp run -S`` needs that: it forgets a change of what several places share, without a word.

    Args:
        text: YAML whose top level is a block of sections; comments are kept.
    """
    events = [event for event in yaml.parse(text) if isinstance(event, yaml.NodeEvent) and event.anchor]
    names = [event.anchor for event in events if isinstance(event, yaml.AliasEvent)]
    if not names:
        return text
    values = yaml.safe_load(f"{text}\nvalues of aliases: [{', '.join(f'*{name}' for name in names)}]")
    remaining = iter(values["values of aliases"])
    parts, place = [], 0
    for event in events:
        assert event.start_mark is not None
        start = event.start_mark.index
        if isinstance(event, yaml.AliasEvent):
            parts += [text[place:start], _in_one_line(next(remaining))]
        else:
            parts.append(text[place:start].rstrip(" "))
        place = start + len(f"&{event.anchor}")
    return "".join([*parts, text[place:]])


def _in_one_line(value: object) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return re.sub(r"\n\.\.\.$", "", written.strip())
