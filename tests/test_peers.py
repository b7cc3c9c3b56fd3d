"""benchmarks/peers: other packages for facial expressions, in an environment of their own."""

from pathlib import Path

import pytest
from affect.benchmarks.peers.environment import NotInstallableError, environment


@pytest.mark.slow
def test_without_a_network_the_reason_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotInstallableError, match=r"^ERROR: No matching distribution found for \S+$"):
        environment(tmp_path / "peers")
