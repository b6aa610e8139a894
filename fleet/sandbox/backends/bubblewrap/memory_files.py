"""Files without a name and without a disk, to be handed to a sandbox as descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import os


def sealed_file(stack: contextlib.ExitStack, content: bytes) -> int:
    """A memory file that its reader can neither change nor grow."""
    descriptor = memory_file(stack, content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor


def memory_file(stack: contextlib.ExitStack, content: bytes) -> int:
    """A descriptor of a file with this content that lies on no disk, at its begin; closed with the stack."""
    descriptor = os.memfd_create("fleet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written:])
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
