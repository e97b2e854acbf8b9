"""Fixtures of the tests of indexes: embedded Milvus, and frequent switches of threads."""

import sys

import pytest


@pytest.fixture(scope="session")
def uri(tmp_path_factory):
    """One file for all tests: embedded Milvus starts a server that runs until the process ends."""
    for module in ("pymilvus", "milvus_lite"):
        pytest.importorskip(module, reason="needs pip install keras_metric[milvus]")
    return str(tmp_path_factory.mktemp("milvus") / "milvus.db")


@pytest.fixture
def frequent_switches():
    """Python switches threads every 10 microseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
