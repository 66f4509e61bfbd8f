"""What a shard file may be made of: two plain datasets, nothing that leads elsewhere.

HDF5 follows external links, external storage and virtual datasets to any file
the process can read, and a file of a kilobyte can declare an image of
gigabytes; both are looked for before a pixel is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sunpipe.errors import DataError

if TYPE_CHECKING:
    import h5py

MEMBERS = ("images", "mask")
MAX_SIDE = 8192
MAX_CHANNELS = 64


def check_shard(file: h5py.File, name: str) -> None:
    """Refuse a shard whose structure is not ours.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    name : str
        For the message.

    Raises
    ------
    DataError
        Names the member and what is wrong with it.
    """
    import h5py

    if sorted(file) != sorted(MEMBERS):
        raise DataError(f"{name} holds {sorted(file)}, not {list(MEMBERS)}")
    for member in MEMBERS:
        if not isinstance(file.get(member, getlink=True), h5py.HardLink):
            raise DataError(f"{name}: /{member} is a link to somewhere else; refused")
        data = file[member]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise DataError(f"{name}: /{member} keeps its values in another file; refused")
    images, mask = file["images"], file["mask"]
    if images.ndim != 4 or mask.ndim != 3 or mask.shape != (images.shape[0], *images.shape[2:]):
        raise DataError(
            f"{name}: images {images.shape} and mask {mask.shape} do not belong together"
        )
    if max(images.shape[2:]) > MAX_SIDE or images.shape[1] > MAX_CHANNELS:
        raise DataError(f"{name}: images of {images.shape[1:]} are larger than any dataset's")
    for data in (images, mask):
        if data.chunks != (1, *data.shape[1:]) or not data.fletcher32:
            raise DataError(f"{name}: {data.name} is not stored as one checked chunk per image")
