"""What drivers tell anybody by ethtool's ioctl: versions, the feature hw-tc-offload, a link's speed.

Formats: include/uapi/linux/ethtool.h, sockios.h.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from typing import Self

_SIOCETHTOOL = 0x8946
_GDRVINFO, _GSTRINGS, _GSSET_INFO, _GFEATURES, _GLINKSETTINGS = 0x3, 0x1B, 0x37, 0x3A, 0x4C
_IFREQ = struct.Struct("16sP16x")
_LONGEST_NAME = 15
_DRVINFO = struct.Struct("=I32s32s32s32s32s12sIIIII")
_SSET_INFO = struct.Struct("=IxxxxQI")  # cmd, mask of string sets, length of the one that was asked for
_STRINGS = struct.Struct("=III")  # cmd, string set, length; the strings follow
_FEATURES, _STRING = 4, 32  # ETH_SS_FEATURES, ETH_GSTRING_LEN
_TC_OFFLOAD = b"hw-tc-offload"
_GET_FEATURES = struct.Struct("=II")  # cmd, number of blocks; the blocks follow
_BLOCK, _IN_BLOCK = struct.Struct("=IIII"), 32  # bits: available, requested, active, never changed
_LINK = struct.Struct("=II7xb32x")  # cmd, speed, number of words in each of three masks that follow
_MEGABIT, _UNKNOWN_SPEED = 1_000_000, 0xFFFFFFFF


class Ethtool:
    """A socket to ask by. A driver without an answer, or a device that went away, is no error."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def versions(self, device: str) -> tuple[str | None, str | None]:
        """Driver's and firmware's version (ETHTOOL_GDRVINFO), None for what it does not say."""
        answer = self._ask(device, struct.pack("=I", _GDRVINFO).ljust(_DRVINFO.size, b"\0"))
        if answer is None:
            return None, None
        _, _, version, firmware, *_ = _DRVINFO.unpack(answer)
        texts = [raw.partition(b"\0")[0].decode("utf-8", "replace") for raw in (version, firmware)]
        return texts[0] or None, texts[1] or None

    def speed(self, device: str) -> int | None:
        """Of its link, in bits a second (ETHTOOL_GLINKSETTINGS); None without link, or where there is no such thing."""
        words = 0
        for _ in range(2):  # the first answer only says how many words there are
            answer = self._ask(device, _LINK.pack(_GLINKSETTINGS, 0, words) + bytes(3 * 4 * words))
            if answer is None:
                return None
            _, speed, words = _LINK.unpack_from(answer)
            if words >= 0:
                return speed * _MEGABIT if 0 < speed < _UNKNOWN_SPEED else None
            words = -words
        return None

    def features(self, device: str) -> tuple[bytes, ...]:
        """Names of the kernel's features by number, the same for all devices; none where it does not tell."""
        answer = self._ask(device, _SSET_INFO.pack(_GSSET_INFO, 1 << _FEATURES, 0))
        if answer is None:
            return ()
        _, _, number = _SSET_INFO.unpack(answer)
        answer = self._ask(device, _STRINGS.pack(_GSTRINGS, _FEATURES, number) + bytes(number * _STRING))
        if answer is None:
            return ()
        names = (answer[at : at + _STRING] for at in range(_STRINGS.size, len(answer), _STRING))
        return tuple(name.partition(b"\0")[0] for name in names)

    def tc_offload(self, device: str, features: tuple[bytes, ...]) -> bool | None:
        """Whether hw-tc-offload is on (ETHTOOL_GFEATURES); None where the driver does not have it.

        Args:
            device: its name.
            features: as :meth:`features` tells.
        """
        if _TC_OFFLOAD not in features:
            return None
        blocks = -(-len(features) // _IN_BLOCK)
        answer = self._ask(device, _GET_FEATURES.pack(_GFEATURES, blocks) + bytes(blocks * _BLOCK.size))
        if answer is None:
            return None
        block, bit = divmod(features.index(_TC_OFFLOAD), _IN_BLOCK)
        available, _, active, _ = _BLOCK.unpack_from(answer, _GET_FEATURES.size + block * _BLOCK.size)
        return bool(active >> bit & 1) if (available | active) >> bit & 1 else None

    def _ask(self, device: str, request: bytes) -> bytes | None:
        name = device.encode()
        if len(name) > _LONGEST_NAME:
            return None
        buffer = array("B", request)
        try:
            fcntl.ioctl(self._socket, _SIOCETHTOOL, _IFREQ.pack(name, buffer.buffer_info()[0]))
        except OSError:
            return None
        return buffer.tobytes()
