"""Installs other packages for facial expressions into an environment of their own: work/peers.

Their weights come inside the packages. Their requirements on versions are not followed, because they exclude each other
and ask for a second torch: torch and torchvision are those of affect, all other libraries are installed.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("run_peer.py")
FER = "fer==25.10.3"
PACKAGES = (FER, "facial-emotion-recognition==0.3.4", "facenet-pytorch==2.6.0")
LIBRARIES = (
    "matplotlib", "numpy<2.3", "opencv-python-headless==4.12.0.88", "pandas", "pillow", "requests", "setuptools<81",
    "tensorflow==2.20.0", "tqdm", "wheel",
)  # fmt: skip


class NotInstallableError(Exception):
    """The packages cannot be installed here. The message is one line."""


def environment(folder: Path = ROOT / "work" / "peers") -> Path:
    """The Python of the environment. It is made in the first call, which takes minutes and 3 GB.

    Raises NotInstallableError, for example without a network.
    """
    python, complete = folder / "bin" / "python", folder / "installed.json"
    wanted = json.dumps([*PACKAGES, *LIBRARIES, sys.executable])
    if complete.is_file() and complete.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {', '.join(PACKAGES)} into {folder}; this takes minutes", file=sys.stderr)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    for words in (LIBRARIES, ("--no-deps", "--no-build-isolation", *PACKAGES)):
        done = subprocess.run([*pip, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise NotInstallableError(errors[-1])
    own = subprocess.check_output(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )  # fmt: skip
    # Searched after the libraries of the environment, so only what these lack is found there.
    Path(own.strip(), "affect-torch.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    complete.write_text(wanted, encoding="utf-8")
    return python
