"""Keep freed memory in the process: every step frees and asks for the same large tensors."""

import ctypes
import functools
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # mallopt's names in malloc.h
LARGEST = 2**31 - 1
GROWTH = 256 * 2**20


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from a heap that does not shrink; False where the C library is another one.

    Note:
        The variable GLIBC_TUNABLES can say the same, but older versions of glibc cut it at the first colon for child
        processes, and training runs in children of children.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, LARGEST), (TOP_PAD, GROWTH))
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in settings)
