"""Every exception of the driver becomes one of ours."""

from __future__ import annotations

import inspect

import pytest
from neo4j import exceptions as driver

from fleet.graph.neo4j.bolt import translated
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.kernel.errors import ConfigError, FleetError, InvalidInput, Retry, StoreUnavailable
from fleet.kernel.ids import StreamId

CLASSES = [
    cls
    for name, cls in inspect.getmembers(driver, inspect.isclass)
    if issubclass(cls, Exception) and not name.startswith("_")
]

DEFECTS = {
    "BrokenRecordError",
    "CypherSyntaxError",
    "CypherTypeError",
    "ResultConsumedError",
    "ResultError",
    "ResultFailedError",
    "ResultNotSingleError",
    "SessionError",
    "TransactionError",
    "TransactionNestingError",
}


def built(cls: type[Exception]) -> Exception:
    """An instance, whatever its constructor wants."""
    error = cls.__new__(cls)
    error.args = ("what the driver says",)
    return error


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_exception_of_the_driver_is_translated(cls: type[Exception]) -> None:
    with pytest.raises(FleetError) as caught, translated("apply story:st-1"):
        raise built(cls)
    assert isinstance(caught.value.__cause__, cls)
    assert "apply story:st-1" in caught.value.message
    assert caught.value.retry is (Retry.NEVER if cls.__name__ in DEFECTS else Retry.LATER)


def test_list_of_classes_is_not_empty() -> None:
    assert len(CLASSES) > 30


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError(), OSError(113, "no route")])
def test_error_of_the_network_is_store_unavailable(error: Exception) -> None:
    with pytest.raises(StoreUnavailable), translated("read"):
        raise error


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(InvalidInput), translated("read"):
        raise InvalidInput("ours")


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1", "bolt://:secret@host:port"])
def test_malformed_address_is_a_config_error_without_the_password(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Neo4jGraph.connect(uri, user="root", password="secret", database="neo4j")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_server_that_is_not_there_is_store_unavailable() -> None:
    graph = Neo4jGraph.connect("bolt://127.0.0.1:1", user="root", password="x", database="neo4j", timeout_s=0.2)
    try:
        with pytest.raises(StoreUnavailable):
            await graph.cursor(StreamId("story:st-a"))
    finally:
        await graph.close()
