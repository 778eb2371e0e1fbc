"""What every test starts from: offline, without keys, in a directory of its own."""

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import ipaddress
import socket
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.models", "tests.server"]

# The same examples every time, and no failure because the machine was busy.
hypothesis.settings.register_profile("kaarel-bet", derandomize=True, deadline=None)
hypothesis.settings.load_profile("kaarel-bet")

_SECRETS = ("OPENAI_", "KAAREL_BET_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--peers",
        action="store_true",
        help="compare with other programs, in environments of uv's making",
    )
    parser.addoption(
        "--wheel", action="store_true", help="install the wheel with pip and run the default job"
    )
    parser.addoption(
        "--slow", action="store_true", help="what takes minutes, and more of what is repeated"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kinds = {
        "peers": "installs other programs",
        "wheel": "installs the wheel",
        "slow": "takes minutes",
    }
    for flag, what in kinds.items():
        if config.getoption(f"--{flag}"):
            continue
        for item in items:
            if item.get_closest_marker(flag):
                item.add_marker(pytest.mark.skip(reason=f"{what}: --{flag}"))


@pytest.fixture(autouse=True)
def _own_surroundings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in [name for name in os.environ if name.upper().startswith(_SECRETS)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family != getattr(socket, "AF_UNIX", None):
            assert isinstance(address, tuple)
            if not _is_loopback(str(address[0])):
                # Not an OSError, which the code under test may well handle.
                pytest.fail(f"a test tried to reach {address[0]}")
        connect(self, address)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
