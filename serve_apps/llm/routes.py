"""`/v1`: the cluster's models for other programs, in OpenAI's wire format (AP-122).

What callers send and what models answer is never logged here, whatever goes wrong. Secrets in what callers send are
taken out before a model sees them (CX-60), and the header `X-Fleet-Redactions` tells how many of which class (CX-74).
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fleet.config.settings import ServeSettings
from fleet.desk.chat import ChatDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, InvalidInput, MalformedRequest, NotFound
from fleet.models.chat import CallTag
from fleet.models.service.redaction import redacted_request
from serve_apps.bounds import RequestBounds
from serve_apps.llm.address import LLM_PREFIX
from serve_apps.llm.answer import ChatAnswer
from serve_apps.llm.body import ChatCompletionBody
from serve_apps.llm.errors import ErrorBody, error_response, shown
from serve_apps.llm.replies import ChatCompletion, ModelList, ModelView, model_list, model_view
from serve_apps.llm.wire import chat_request, read_body
from serve_apps.rates import PrincipalRates
from serve_apps.requests import Caller, Json
from serve_apps.wire.redactions import REDACTIONS_HEADER, shown_counts

_BODY = "#/components/schemas/"


def build_llm(
    desk: ChatDesk,
    registry: PrincipalRegistry,
    settings: ServeSettings,
    *,
    clock: Clock,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> FastAPI:
    """The application, to be served below `/v1`; of a caller it keeps nothing but counts.

    Args:
        beside: runs for as long as the application does.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.ensure_future(beside()) if beside is not None else None
        yield
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await desk.drain()

    app = FastAPI(
        title="SWE Fleet models",
        version="1",
        lifespan=lifespan,
        servers=[{"url": LLM_PREFIX}],
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": ErrorBody} for status in (400, 401, 404, 409, 413, 429, 503, 504)},
    )
    app.state.desk, app.state.registry, app.state.settings, app.state.clock = desk, registry, settings, clock
    app.state.rates = PrincipalRates(settings.rate, clock)
    app.add_exception_handler(FleetError, _refused)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, _invalid)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, _unknown)  # pyright: ignore[reportArgumentType]
    app.add_middleware(
        RequestBounds,
        max_body_bytes=settings.max_body_bytes,
        refuse=lambda error, _: error_response(shown(error)),
        is_private=True,
    )
    _routes(app)
    return app


async def _refused(request: Request, error: FleetError) -> JSONResponse:
    return error_response(shown(error))


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return error_response(InvalidInput("; ".join(problems)))


async def _unknown(request: Request, error: HTTPException) -> JSONResponse:
    what = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        refusal: FleetError = NotFound(f"there is nothing at {what}", openai_code="unknown_url")
    else:
        refusal = MalformedRequest(f"{what}: {error.detail}", openai_code="method_not_supported")
    response = error_response(refusal, status=error.status_code)
    response.headers.update(error.headers or {})
    return response


def _desk(request: Request) -> ChatDesk:
    return request.app.state.desk


Desk = Annotated[ChatDesk, Depends(_desk)]


def _priority(x_fleet_priority: Annotated[str | None, Header()] = None) -> Literal["person", "batch"]:
    match x_fleet_priority:
        case None | "person":
            return "person"
        case "batch":
            return "batch"
        case _:
            raise InvalidInput(
                "X-Fleet-Priority is person or batch", field="X-Fleet-Priority", allowed=["person", "batch"]
            )


Priority = Annotated[Literal["person", "batch"], Depends(_priority)]


def _routes(app: FastAPI) -> None:
    @app.get("/models", response_model=ModelList)
    async def list_models(desk: Desk, who: Caller) -> ModelList:
        """The models that the caller may use."""
        return model_list(desk.offered(who))

    @app.get("/models/{model_id}", response_model=ModelView)
    async def show_model(desk: Desk, who: Caller, model_id: str) -> ModelView:
        """One of them."""
        return model_view(desk.engine(who, model_id))

    @app.post("/chat/completions", response_model=ChatCompletion, openapi_extra=_request_body(app))
    async def chat_completions(
        request: Request, desk: Desk, who: Caller, priority: Priority, document: Json
    ) -> Response:
        """One reply of a model, whole or as server-sent events with `stream: true`.

        A client that goes away ends its request at the engine. Secrets in messages and tools are taken out before the
        model sees them; `X-Fleet-Redactions` tells how many of which class, as `AWS=1, KEY_VALUE=2`.
        """
        body = read_body(document)
        engine = desk.engine(who, body.model)
        asked, redactions = await asyncio.to_thread(
            redacted_request, chat_request(body, engine, seed=secrets.randbelow(2**31))
        )
        affinity = f"{who}/{body.prompt_cache_key}" if body.prompt_cache_key else ""
        state = request.app.state
        call_id = f"chatcmpl-{uuid.uuid4().hex}"
        return ChatAnswer(
            lambda: desk.open(
                who,
                engine.engine_id,
                asked,
                call_id=call_id,
                tag=CallTag(tenant=str(who), priority=priority, affinity=affinity),
                is_streamed=bool(body.stream),
                is_bounded=body.reply_bound is not None,
            ),
            opened=lambda: state.rates.one_more(who),
            call_id=call_id,
            created_s=state.clock.now_ms() // 1000,
            is_streamed=bool(body.stream),
            includes_usage=body.includes_usage,
            heartbeat_s=state.settings.heartbeat_s,
            headers={REDACTIONS_HEADER: shown_counts(redactions)} if redactions else {},
        )


def _request_body(app: FastAPI) -> dict[str, Any]:
    """The schema of the body for the OpenAPI document; the body itself is read by `read_body`, after the caller."""
    schema = ChatCompletionBody.model_json_schema(by_alias=True, ref_template=_BODY + "{model}")
    parts: dict[str, Any] = schema.pop("$defs", {})
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document["components"]["schemas"] |= {**parts, ChatCompletionBody.__name__: schema}
        return document

    app.openapi = openapi  # pyright: ignore[reportAttributeAccessIssue]
    named = {"$ref": _BODY + ChatCompletionBody.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": named}}}}
