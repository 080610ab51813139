"""hold.py GROUP ADDRESS... -- PROGRAM NAME ARG...: opens VFIO devices as QEMU does, then becomes PROGRAM, called NAME.

The group is put into a container with an IOMMU, the devices of ADDRESS are opened; all of these stay open in PROGRAM.
ioctls: include/uapi/linux/vfio.h.
"""

import ctypes
import fcntl
import os
import sys

SET_CONTAINER, SET_IOMMU, GET_DEVICE_FD = 0x3B68, 0x3B66, 0x3B6A
TYPE1V2_IOMMU = 3


def hold(group: str, addresses: list[str]) -> None:
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    held = os.open(f"/dev/vfio/{group}", os.O_RDWR)
    fcntl.ioctl(held, SET_CONTAINER, ctypes.c_int(container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1V2_IOMMU)
    devices = [fcntl.ioctl(held, GET_DEVICE_FD, ctypes.create_string_buffer(a.encode())) for a in addresses]
    for descriptor in (container, held, *devices):
        os.set_inheritable(descriptor, True)


if __name__ == "__main__":
    at = sys.argv.index("--")
    hold(sys.argv[1], sys.argv[2:at])
    program, *arguments = sys.argv[at + 1 :]
    os.execv(program, arguments)  # noqa: S606  # the name is the point
