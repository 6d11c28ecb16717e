"""Eight fake devices, so that sharding is tested everywhere."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib

import pytest

SHARED = pathlib.Path(
    os.environ.get("LINKNET_SHARED_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data")
)


@pytest.fixture(scope="session")
def vrd_dir() -> pathlib.Path:
    """The VRD photographs; the test is skipped where they are absent."""
    folder = SHARED / "vrd"
    if not folder.is_dir():
        pytest.skip(f"no VRD photographs in {folder} (set LINKNET_SHARED_DATA)")
    return folder
