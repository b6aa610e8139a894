"""A file of weights at one address, over HTTP with range requests."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager

import httpx2

from fleet.kernel.errors import ModelUnavailable
from fleet.models.weights import UrlSource, Weights

_PIECE_BYTES = 1 << 20
_AGAIN_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes ([0-9]+)-")


class UrlWeights:
    """Reads the file from any byte on; a server without range requests is read from its beginning.

    Args:
        silence_s: a server that sends nothing for so long has broken off.
    """

    def __init__(self, *, silence_s: float = 30.0, connect_s: float = 10.0) -> None:
        self._timeout = httpx2.Timeout(silence_s, connect=connect_s)

    async def pieces(self, weights: Weights, source: UrlSource, *, start: int) -> AsyncGenerator[bytes]:
        """See `WeightsSource.pieces`."""
        # Compressed bytes would have other offsets than those of the file.
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={start}-"} if start else {})
        with _translated(source):
            async with (
                httpx2.AsyncClient(timeout=self._timeout, follow_redirects=True) as client,
                client.stream("GET", source.url, headers=headers) as response,
            ):
                skip = start - _first_byte(response, source)
                async for piece in response.aiter_raw(_PIECE_BYTES):
                    if skip >= len(piece):
                        skip -= len(piece)
                        continue
                    yield piece[skip:]
                    skip = 0


def _first_byte(response: httpx2.Response, source: UrlSource) -> int:
    """Where in the file the body begins. ModelUnavailable when it is not the file."""
    match response.status_code:
        case 200:
            return 0
        case 206 if match := _RANGE.match(response.headers.get("content-range", "")):
            return int(match[1])
        case 404 | 410:
            raise _failed(source, "has no such file (404): correct the address in models.yaml", is_permanent=True)
        case 401 | 403:
            raise _failed(source, f"refuses to give the file ({response.status_code})", is_permanent=True)
        case status:
            raise _failed(source, f"answered {status}", is_permanent=status not in _AGAIN_LATER)


@contextmanager
def _translated(source: UrlSource) -> Generator[None]:
    try:
        yield
    except httpx2.TimeoutException as error:
        raise _failed(source, "sends nothing; try again later", is_permanent=False) from error
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
        raise _failed(
            source,
            f"cannot be reached ({str(error) or type(error).__name__}): is this machine on the network? A file or "
            "folder that you have already is taken with --from",
            is_permanent=False,
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _failed(source, f"broke off ({str(error) or type(error).__name__})", is_permanent=False) from error


def _failed(source: UrlSource, what: str, *, is_permanent: bool) -> ModelUnavailable:
    return ModelUnavailable(f"{source.url} {what}", url=source.url, permanent=is_permanent)
