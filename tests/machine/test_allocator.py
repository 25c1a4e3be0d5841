from __future__ import annotations

import platform

from cryoplug.machine.allocator import keep_allocator_memory


def test_it_works_where_the_c_library_is_glibc_and_says_so() -> None:
    assert keep_allocator_memory() is (platform.libc_ver()[0] == "glibc")


def test_a_second_call_does_nothing_more() -> None:
    assert keep_allocator_memory() == keep_allocator_memory()
