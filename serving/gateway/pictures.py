"""Keeping images, and giving their addresses out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serving.gateway.blobs.base import Kept, keep
from serving.gateway.store.repositories import images
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Image
from serving.gateway.uploads import Picture, check_picture

if TYPE_CHECKING:
    from serving.gateway.gateway import Gateway


async def keep_picture(gateway: Gateway, tenant: str, picture: Picture) -> Kept:
    """The picture's bytes, safely in the image store. Its row comes after, by :func:`add_picture`."""
    return await gateway.run_images(keep, gateway.blobs, tenant, picture.data, picture.media_type)


async def checked(gateway: Gateway, data: bytes) -> Picture:
    """``data`` as a picture; ``ImageError`` where it is none."""
    return await gateway.run(check_picture, data, gateway.image_limits)


def add_picture(scope: Scope, kept: Kept, picture: Picture, *, system: str, owner: str, **row: Any) -> Image:
    """The row of a kept picture."""
    return images.add(
        scope,
        kept,
        media_type=picture.media_type,
        width=picture.width,
        height=picture.height,
        system=system,
        owner=owner,
        **row,
    )


def url_of(gateway: Gateway, image: Image) -> str:
    """An address that gives the image to whoever has it, until it expires. Blocks for S3: milliseconds."""
    return gateway.blobs.url(
        image.tenant_id,
        image.sha256,
        media_type=image.media_type,
        expires_s=gateway.settings.url_expires_s,
        filename=f"{image.id}.{image.media_type.partition('/')[2]}",
    )
