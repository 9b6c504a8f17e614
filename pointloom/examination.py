"""One line of what ``pointloom doctor`` prints."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Attributes:
        state: ``ok``, ``info`` (works, could be better) or ``bad`` (something will fail).
        name: What was looked at.
        text: What was found, and what to do when it is not ok.
    """

    state: Literal["ok", "info", "bad"]
    name: str
    text: str
