"""What a process says of its models: what its routers and queues counted, on the board and as metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.model_gauges import model_gauges, shown_as
from fleet.config.settings import ServeSettings
from fleet.desk.chat import ChatDesk
from fleet.desk.principals import PrincipalRegistry, PrincipalSpending
from fleet.kernel.clock import MemoryClock, settled
from fleet.kernel.errors import ModelUnavailable, StoreUnavailable
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.figures import ModelFigures
from fleet.models.memory import MemoryModelBoard, ScriptedChatModel
from fleet.models.port import EngineInfo
from fleet.models.profiles import load_models
from fleet.models.service.model_reporter import ModelReporter, figures_of_engine, figures_of_routers
from fleet.models.service.queued_model import QueuedModel, QueueStats
from fleet.models.service.routed_model import RoutedModel
from fleet.owner.spending.memory import MemoryDaySpending
from serve_apps.llm.routes import build_llm
from tests.support.rules import files

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="one two three"),))


async def test_router_tells_calls_tokens_waits_and_circuits_of_each_replica() -> None:
    clock = MemoryClock()
    well = QueuedModel(ScriptedChatModel.of("four five"), clock, "web")
    router = RoutedModel({"well": well, "away": ScriptedChatModel.of(ModelUnavailable("away"))}, clock, "web")
    for number in range(12):
        await router.complete(REQUEST, request_id=f"r{number}", timeout_s=60)
    rows = {row.replica: row for row in figures_of_routers([router.stats()])}
    assert (rows["well"].calls, rows["well"].served, rows["well"].tokens_in) == (12, 12, 36)
    assert (rows["well"].tokens_out, rows["well"].circuit) == (24, "closed")
    assert (rows["away"].calls, rows["away"].failures, rows["away"].circuit) == (3, 3, "open")
    await router.close()


def test_engine_tells_what_its_queue_and_its_library_counted() -> None:
    info = EngineInfo(engine="own", model="m", running=9, tokens_in=10, tokens_out=4, tokens_cached=5)
    queue = QueueStats(running=2, waiting=3, served=7, rejected=7, queue_ms=500)
    row = figures_of_engine("engine:own:0", info, queue)
    assert (row.source, row.running, row.waiting, row.served, row.wait_ms) == ("engine", 2, 3, 7, 500)
    assert (row.rejected, row.tokens_in, row.hit_rate) == (7, 10, 0.5)


async def test_figures_are_told_again_and_again_and_an_outage_ends_nothing() -> None:
    clock, shown = MemoryClock(), list[int]()

    class Board(MemoryModelBoard):
        is_away = True

        async def post(self, reporter: str, figures: Sequence[ModelFigures], *, ttl_s: int) -> None:
            if self.is_away:
                raise StoreUnavailable("away")
            await super().post(reporter, figures, ttl_s=ttl_s)

    board = Board(clock)

    async def look() -> list[ModelFigures]:
        return [ModelFigures(source="router", engine="e", replica="e", calls=len(shown))]

    def show(reporter: str, figures: Sequence[ModelFigures]) -> None:
        shown.append(figures[0].calls)

    task = asyncio.create_task(ModelReporter("role:qa:0", look, board, show, clock).run())
    await settled()
    assert await board.read() == []
    board.is_away = False
    clock.advance(5)
    await settled()
    assert shown == [0, 1]
    assert [row.calls for row in await board.read()] == [1]
    clock.advance(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    clock.advance(60)
    assert await board.read() == []


def test_gauges_say_what_the_figures_say() -> None:
    seen: dict[tuple[str, str], float] = {}

    class Shown:
        def __init__(self, name: str) -> None:
            self.name = name

        def set(self, value: float, tags: dict[str, str]) -> None:
            seen[self.name, "/".join(tags.values())] = value

    row = ModelFigures(source="router", engine="e", replica="e:0", circuit="open", waiting=4, wait_ms=1500)
    shown_as({name: Shown(name) for name in model_gauges()})("role:qa:0", [row])
    where = "e/e:0/role:qa:0"
    assert seen["fleet_model_circuit_open", where] == 1
    assert seen["fleet_model_queue_waiting", where] == 4
    assert seen["fleet_model_queue_wait_seconds", where] == 1.5
    assert len(seen) == 12


async def test_front_of_the_models_reports_for_as_long_as_it_is_up() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def report() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    clock = MemoryClock()
    config = load_models(files().document("models.yaml"))
    spending = PrincipalSpending(MemoryDaySpending(), config.budgets, clock)
    desk = ChatDesk(config, {}, spending=spending, clock=clock, roles_of=lambda _: ())
    app = build_llm(desk, PrincipalRegistry(()), files().load("serve.yaml", ServeSettings), clock=clock, beside=report)
    async with app.router.lifespan_context(app):
        await begun.wait()
        assert not ended.is_set()
    assert ended.is_set()
