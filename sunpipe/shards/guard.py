"""What a shard file may be made of: plain datasets, nothing that leads elsewhere.

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
SUMS = "image_sums"  # of uncompressed images, which have no checksum of HDF5's
MAX_SIDE = 8192
MAX_CHANNELS = 64
DTYPES = ("<i2", "<f2", "<f4")
BITSHUFFLE, FLETCHER32, WITH_LZ4 = 32008, 3, 2


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

    members = (SUMS, *MEMBERS) if SUMS in file else MEMBERS
    if sorted(file) != sorted(members):
        raise DataError(f"{name} holds {sorted(file)}, not {list(members)}")
    for member in members:
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
    if images.dtype.str not in DTYPES or mask.dtype.str != "|u1":
        raise DataError(f"{name}: images are {images.dtype}, the mask is {mask.dtype}; not ours")
    for data in (mask,) if SUMS in file else (images, mask):
        _check_chunks(data, name)
    if SUMS in file:
        _check_contiguous(images, file[SUMS], name)


def _check_chunks(data: h5py.Dataset, name: str) -> None:
    """One chunk per image, with the two filters that the reader knows, in their order."""
    plain = data.id.get_create_plist()
    filters = [plain.get_filter(place) for place in range(plain.get_nfilters())]
    if data.chunks != (1, *data.shape[1:]) or [each[0] for each in filters[1:]] != [FLETCHER32]:
        raise DataError(f"{name}: {data.name} is not stored as one checked chunk per image")
    code, options = filters[0][0], filters[0][2]
    if code != BITSHUFFLE or len(options) < 5 or options[4] != WITH_LZ4:
        raise DataError(f"{name}: {data.name} is not compressed by bitshuffle with LZ4")


def _check_contiguous(images: h5py.Dataset, sums: h5py.Dataset, name: str) -> None:
    """Uncompressed images in one piece, and two checked 64-bit sums of each."""
    import h5py

    layout = images.id.get_create_plist().get_layout()
    if layout != h5py.h5d.CONTIGUOUS or images.id.get_offset() is None:
        raise DataError(f"{name}: /{SUMS} belongs to contiguous images, these are not")
    if sums.shape != (len(images), 2) or sums.dtype.str != "<u8" or not sums.fletcher32:
        raise DataError(f"{name}: /{SUMS} is not two checked numbers per image")
