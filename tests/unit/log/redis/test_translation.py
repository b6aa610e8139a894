"""Every exception of the driver becomes one of ours."""

from __future__ import annotations

import inspect

import pytest
from redis import exceptions as driver

from fleet.kernel.errors import ConfigError, FleetError, Retry, StoreFull, StoreUnavailable
from fleet.log.redis.connection import connect_redis, is_reply_lost, translated

CLASSES = [
    cls for _, cls in inspect.getmembers(driver, inspect.isclass) if issubclass(cls, Exception) and cls is not Exception
]


def built(cls: type[Exception]) -> Exception:
    return cls("1 127.0.0.1:1") if issubclass(cls, driver.AskError) else cls("what the driver says")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_exception_of_the_driver_is_translated(cls: type[Exception]) -> None:
    with pytest.raises(FleetError) as caught, translated("append to story:st-1"):
        raise built(cls)
    assert isinstance(caught.value.__cause__, cls)
    assert "append to story:st-1" in caught.value.message


def test_list_of_classes_is_not_empty() -> None:
    assert len(CLASSES) > 30


DEFECTS = {
    "ChildDeadlockedError",
    "DataError",
    "IncorrectPolicyType",
    "InvalidPipelineStack",
    "LockError",
    "LockNotOwnedError",
    "NoSuchFieldsetError",
    "PubSubError",
    "WatchError",
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_only_our_own_defects_are_never_repeated(cls: type[Exception]) -> None:
    with pytest.raises(FleetError) as caught, translated("read"):
        raise built(cls)
    is_defect = cls.__name__ in DEFECTS
    assert caught.value.retry is (Retry.NEVER if is_defect else Retry.LATER)


@pytest.mark.parametrize(
    "error",
    [
        driver.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        driver.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        driver.ResponseError("OOM command not allowed"),
    ],
)
def test_server_without_room_is_store_full(error: Exception) -> None:
    with pytest.raises(StoreFull), translated("append"):
        raise error


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError(), OSError(113, "no route")])
def test_error_of_the_network_is_store_unavailable(error: Exception) -> None:
    with pytest.raises(StoreUnavailable), translated("append"):
        raise error


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(ConfigError), translated("append"):
        raise ConfigError("ours")


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (driver.ConnectionError("reset"), True),
        (driver.TimeoutError("late"), True),
        (TimeoutError(), True),
        (driver.InvalidResponse("noise"), True),
        (driver.BusyLoadingError("loading"), False),
        (driver.ResponseError("BUSY"), False),
        (driver.AuthenticationError("who?"), False),
        (ValueError("a defect"), False),
    ],
)
def test_reply_is_lost_unless_the_server_refused(error: Exception, is_lost: bool) -> None:
    assert is_reply_lost(error) is is_lost


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis://:secret@host:port/0"])
def test_malformed_address_is_a_config_error_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect_redis(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
