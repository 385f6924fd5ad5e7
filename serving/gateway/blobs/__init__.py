"""Where images are: a folder, S3 or Google's Cloud Storage, by their content within a tenant.

:func:`~serving.gateway.blobs.base.keep` puts bytes and gives what a row needs; ``place.py`` opens one.
"""

from .base import BlobStore, Kept, Stored, keep
from .place import open_blobs

__all__ = ["BlobStore", "Kept", "Stored", "keep", "open_blobs"]
