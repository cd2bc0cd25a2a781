"""What several tests of functional/ need."""

import pytest
import torch


@pytest.fixture
def mesh(tmp_path):
    """A device mesh of this process alone."""
    from torch.distributed.device_mesh import init_device_mesh

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()
