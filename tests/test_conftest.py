import os
import socket
from pathlib import Path

import pytest


def test_other_machines_are_out_of_reach() -> None:
    with (
        socket.socket() as unconnected,
        pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"),
    ):
        unconnected.connect(("192.0.2.1", 80))


def test_loopback_is_within_reach() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_each_test_has_its_own_directory_and_no_keys(tmp_path: Path) -> None:
    assert Path.cwd() == tmp_path
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in os.environ if name.startswith(("OPENAI_", "HF_TOKEN"))]
