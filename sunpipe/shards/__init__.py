"""Shards: HDF5 images in physical units, their records, and how to read them in order."""
