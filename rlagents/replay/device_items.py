"""Items where the networks are: in a GPU's memory, so that batches need not be carried there.

The one module of replay that knows PyTorch; it is imported when such items are asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlagents.errors import UsageError
from rlagents.files import load_array, save_array
from rlagents.types import Array, IntArray


class DeviceItems:
    """Items in one tensor.

    Args:
        count: of items.
        shape: of each.
        dtype: of their numbers.
        device: in PyTorch's words, such as "cuda".

    Raises:
        UsageError: the device has no room for them.
    """

    def __init__(
        self, count: int, shape: tuple[int, ...], dtype: npt.DTypeLike, device: str
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._device = torch.device(device)
        try:
            self.tensor = self.batch((count, *shape))
        except torch.OutOfMemoryError as error:
            nbytes = count * int(np.prod(shape)) * self._dtype.itemsize
            raise UsageError(
                f"[replay] storage: the frames would take {nbytes / 1e9:.1f} GB of the GPU's "
                'memory, which are not free. Lower --replay.capacity, or set storage = "memory".'
            ) from error

    def batch(self, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor of zeros on the device, for `take` to write to."""
        kind = torch.from_numpy(np.empty(0, dtype=self._dtype)).dtype
        return torch.zeros(shape, dtype=kind, device=self._device)

    def put(self, index: IntArray, items: Array) -> None:
        """Write items under their numbers."""
        plain = np.ascontiguousarray(items, dtype=self._dtype)
        self.tensor[self._there(index)] = torch.from_numpy(plain).to(self._device)

    def take(self, index: IntArray, out: Tensor) -> None:
        """Read items into a tensor on the device."""
        torch.index_select(self.tensor, 0, self._there(index), out=out)

    def _there(self, index: IntArray) -> Tensor:
        return torch.from_numpy(index).to(self._device)

    def save(self, path: Path, begin: int, end: int) -> None:
        """Write items."""
        save_array(path, self.tensor[begin:end].cpu().numpy())

    def load(self, path: Path, begin: int, end: int) -> None:
        """Read items."""
        shape = tuple(self.tensor[begin:end].shape)
        self.tensor[begin:end] = torch.from_numpy(load_array(path, self._dtype, shape))
