import pytest

from nemo_ext.megatron.data.token_folder import PackedData
from tests.nemo_ext.megatron_data.samples import made, write


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PackedData:
    return write(tmp_path_factory.mktemp("data"), made(103))


@pytest.fixture(scope="session")
def even(tmp_path_factory: pytest.TempPathFactory) -> PackedData:
    return write(tmp_path_factory.mktemp("even"), made(102))
