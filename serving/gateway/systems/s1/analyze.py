"""``/api/v1/analyze/image``, ``/file`` and ``/health``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from data.errors import NotAllowed, NotAnImage, NotGradable
from data.files import sha256_bytes
from serving.gateway.access import Role
from serving.gateway.gateway import Gateway
from serving.gateway.loop.challenge import Kept
from serving.gateway.loop.keep import glance_at, keep_answer
from serving.gateway.once import Once, respond
from serving.gateway.openapi import KEYED, MODEL, ONCE, errors
from serving.gateway.pictures import add_picture, checked, keep_picture
from serving.gateway.routing import Who, allow, public
from serving.gateway.store.repositories.idempotency import Answer as Earlier
from serving.gateway.store.types import about
from serving.gateway.systems.s1.document import Health, Profile, health_of, profile_of
from serving.gateway.systems.s1.folder import read_within
from serving.gateway.systems.s1.mock import Mock
from serving.gateway.uploads import Picture, read_upload, upload_body
from serving.profile import TASK

_FORMATS = ("jpeg", "png", "bmp")
_FILE = upload_body("The photograph: JPEG, PNG or BMP.")
FilePath = Annotated[
    str, Query(min_length=1, max_length=4096, description="A file in the folder that is set for it.")
]


def add_routes(router: APIRouter, gateway: Gateway) -> None:
    """Add them."""
    mock = Mock(gateway)
    gateway.parts[f"{TASK}-mock"] = mock

    @router.post(
        "/api/v1/analyze/image",
        response_model=Profile,
        responses=errors(422, *MODEL, *ONCE),
        openapi_extra={**_FILE, **KEYED},
    )
    @allow(Role.APP)
    async def analyze_image(request: Request, who: Who) -> Response:
        """Skin type, hair type and condition of the person on a photograph.

        400 for a file that isn't a JPEG, PNG or BMP image; 422 for a photograph that is too blurred, dark,
        bright or small for an answer.
        """
        sent = await read_upload(request)
        return respond(await answer(sent.data, request, who))

    @router.post(
        "/api/v1/analyze/file",
        response_model=Profile,
        responses=errors(400, 404, 413, 422, 502, 507, *ONCE),
        openapi_extra=KEYED,
    )
    @allow(Role.APP)
    async def analyze_file(request: Request, who: Who, file_path: FilePath) -> Response:
        """The same of a file beside this server, for development: 403 unless it is switched on."""
        folder = gateway.settings.analyze_folder
        if folder is None:
            raise NotAllowed(
                "Analysing files by their path is switched off.",
                hint="For development: GATEWAY_ANALYZE_FOLDER names the folder to read from.",
            )
        data = await gateway.run(read_within, folder, file_path, gateway.image_limits.max_bytes)
        return respond(await answer(data, request, who))

    @router.get("/api/v1/analyze/health", response_model=Health)
    @public
    async def health() -> dict[str, Any]:
        """What answers, and what could."""
        # A server that is up names models whose predictor is away.
        described = await gateway.models.describe(TASK) if await gateway.models.ready(TASK) else None
        return health_of(described, mock=mock.on)

    async def answer(data: bytes, request: Request, who: Who) -> Earlier:
        picture = await checked(gateway, data)
        if picture.format not in _FORMATS:
            raise NotAnImage(
                f"The image is {picture.format.upper()}; a profile takes JPEG, PNG and BMP.",
                hint="Convert it to JPEG or PNG.",
            )
        if mock.on:
            # Not kept: there is no model that it could be traced to.
            return Earlier(200, await gateway.run(mock.answer, picture.data))
        return await _analyze(gateway, picture, request, who)


async def _analyze(gateway: Gateway, picture: Picture, request: Request, who: Who) -> Earlier:
    sha256 = sha256_bytes(picture.data)
    # A challenger that runs on what S1 doesn't answers in the shadow only.
    found = await gateway.challengers.ask(TASK, picture.data, key=sha256, usable=profile_of)
    try:
        document = profile_of(found)
    except NotGradable:
        await gateway.run(glance_at, gateway.store, who.tenant, who.actor, found)
        raise
    kept = await keep_picture(gateway, who.tenant, picture)
    hours = gateway.settings.idempotency_hours
    once = Once.of(request, who, {"sha256": kept.sha256}, hours=hours)

    def write() -> tuple[Earlier, Kept | None]:
        with gateway.store.write(who.tenant, who.actor) as scope:
            if (earlier := once.claim(scope)) is not None:
                return earlier, None
            image = add_picture(scope, kept, picture, system="s1", owner=who.subject)
            row = keep_answer(scope, gateway.policy, found, image_id=image.id)
            said = once.answer(scope, 200, document, about=about("image", image.id))
            return said, Kept(who.tenant, TASK, image.id, row.id, found)

    answer, to_compare = await gateway.run(write)
    if to_compare is not None:
        gateway.challengers.shadow(to_compare, picture.data)
    return answer
