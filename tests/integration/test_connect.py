"""Being connected to Ray."""

import socket

import pytest

from cluster.errors import UserError
from cluster.on_ray.connect import connected


def test_who_is_connected_stays_so_and_joins_nothing_else(ray_address: str):
    import ray

    with connected(ray_address):
        with connected(ray_address) as resources, connected(None):
            assert resources["CPU"] == 2
        assert ray.is_initialized()
        with pytest.raises(UserError, match=rf"connected to {ray_address} already"), connected("127.0.0.1:1"):
            pass
    assert not ray.is_initialized()


def test_an_address_where_nothing_answers_is_the_users_to_mend():
    with socket.socket() as taken:  # bound, so that nobody else has it, but not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray cluster answers at {address}.*: Connection refused"):
            with connected(address):
                pass
