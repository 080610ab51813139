"""Watch OVN, OVS, the kernel and OpenStack, and say where they disagree."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mecexporter")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
