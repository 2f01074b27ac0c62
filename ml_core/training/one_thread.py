"""One thread for the compiled libraries of a training, as OpenMP and BLAS have pools of their own."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _LoadedLibrary(ctypes.Structure):
    """``dl_phdr_info`` of ``dl_iterate_phdr(3)``; the last two count what was ever loaded and unloaded."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("n_headers", ctypes.c_uint16),
        ("loaded", ctypes.c_ulonglong),
        ("unloaded", ctypes.c_ulonglong),
    )


_VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_LoadedLibrary), ctypes.c_size_t, ctypes.c_void_p)


def one_thread() -> AbstractContextManager[Any]:
    """Limit the thread pools of all loaded libraries to one thread while a block runs.

    Sums of floats in another order have another result: with one thread, equal trainings make equal models.
    """
    limited: AbstractContextManager[Any] = _thread_pools(_libraries()).limit(limits=1)
    return limited


@lru_cache(maxsize=1)  # the search reads the path of every library, which takes milliseconds
def _thread_pools(_libraries: object) -> ThreadpoolController:
    return ThreadpoolController()


def _libraries() -> object:
    """What differs whenever the process has loaded or unloaded a library; always, where the linker doesn't tell."""
    found: list[tuple[int, int]] = []

    def visit(library: Any, _size: int, _data: object) -> int:
        found.append((library.contents.loaded, library.contents.unloaded))
        return 1  # the counts are the same in each

    try:
        ctypes.CDLL(None).dl_iterate_phdr(_VISIT(visit), None)
    except AttributeError:  # not an ELF platform
        return object()
    return found[0]
