"""What writes captions: from measured facts, or a vision-language model that looks at rendered views."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointloom.captioners.blip2 import Blip2Captioner
from pointloom.captioners.offline import OfflineCaptioner
from pointloom.data.captions import CaptionsInfo, Described


@runtime_checkable
class Captioner(Protocol):
    """Describes the objects of a prepared store."""

    @property
    def info(self) -> CaptionsInfo:
        """What the captions are made with; digests of data are still empty."""
        ...

    @property
    def block_size(self) -> int:
        """How many objects are described at a time; the result may depend on who shares a block."""
        ...

    def __call__(self, rows: NDArray[np.int64]) -> list[Described]:
        """Describe some rows of the store."""
        ...


CAPTIONERS: Mapping[str, Callable[..., Captioner]] = {"offline": OfflineCaptioner, "blip2": Blip2Captioner}
"""``caption.X.method`` -> captioner."""
