"""Tool helm with the real program, from the sandbox, against an API server that keeps objects (RT-51, RT-62)."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fleet.extensions.operations.cluster import ClusterTool
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Digest
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import ClusterTarget, Targets
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.trees.memory import MemoryBlobStore
from tests.support.http_stand_in import serving_http
from tests.support.kubernetes_objects import TOKEN, ObjectServer
from tests.support.sandbox import put_tree, state_folder
from tests.support.tool_calls import call_of, certificates, context_of
from tests.support.tool_kit import SecretSandbox

pytestmark = [
    pytest.mark.wide,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("helm") is None, reason="no helm here: install it below /usr"),
]

HOST, CHART = "api.staging.test", "./chart"
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: prices}\ndata: {price: {{ .Values.price | quote }}}\n"
SECRET = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: planted}\n"


@dataclass
class World:
    """A cluster, and the tool that reaches it."""

    server: ObjectServer
    tool: ClusterTool
    blobs: MemoryBlobStore

    async def tree(self, *, more: str = "", price: str = "1") -> Digest:
        """A workspace with one chart."""
        files: Mapping[str, bytes] = {
            "chart/Chart.yaml": b"apiVersion: v2\nname: shop\nversion: 0.1.0\n",
            "chart/values.yaml": f"price: {price}\n".encode(),
            "chart/templates/config.yaml": (CONFIG + more).encode(),
        }
        return await put_tree(self.blobs, files)

    async def call(self, op: str, tree: Digest | None = None, **args: str) -> ToolOutcome:
        """One call that the policy allowed."""
        context = context_of(tree=tree, environment="staging", timeout_s=120, role="devops", effect="UNSAFE")
        given = {"namespace": "shop", **args}
        return await self.tool.call(call_of("helm", op, **given), context)


async def _here(host: str) -> Sequence[str]:
    return ["127.0.0.1"] if host == HOST else []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    tls, _ = certificates(tmp_path, HOST)
    server, blobs = ObjectServer(), MemoryBlobStore()
    server.objects["/api/v1/namespaces/shop"] = {"kind": "Namespace", "metadata": {"name": "shop", "uid": "u"}}
    async with serving_http(server.answer, tls=tls) as url:
        port = urlsplit(url).port
        with state_folder() as state:
            egress = EgressSettings(resolve=_here, allow_addresses=("127.0.0.1/32",))
            backend = BubblewrapBackend(state, blobs, egress=egress)
            if (health := await backend.health()).status == "down":
                pytest.skip(f"no sandbox can be built here: {'; '.join(health.unmet)}")
            authority = base64.b64encode((tmp_path / "server.pem").read_bytes()).decode()
            place = {"server": f"https://{HOST}:{port}", "certificate-authority-data": authority}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": place}],
                "contexts": [{"name": "staging", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {"token": TOKEN}}],
            }
            sandbox = SecretSandbox(backend, {"kube": json.dumps(config)})
            target = ClusterTarget(context="staging", kubeconfig="secret://kube", server=f"{HOST}:{port}")
            targets = Targets(namespaces=("staging/shop",), charts=(CHART,), clusters={"staging": target})
            yield World(server, ClusterTool("helm", sandbox, blobs, targets=targets), blobs)  # pyright: ignore[reportArgumentType]


@pytest.mark.rule("RT-51", "RT-62")
async def test_release_is_made_changed_taken_back_and_removed(world: World) -> None:
    first, second = await world.tree(), await world.tree(price="2")
    lint = await world.call("lint", first, path="chart")
    assert lint.outcome == "succeeded", lint.text
    rendered = await world.call("template", first, release="web", chart=CHART)
    assert 'price: "1"' in rendered.text, rendered.text

    made = await world.call("upgrade", first, release="web", chart=CHART)
    assert made.outcome == "succeeded", made.text
    assert world.server.object_at("ConfigMap", "shop", "prices")["data"] == {"price": "1"}
    shown = await world.call("diff", second, release="web", chart=CHART)
    assert 'price: "2"' in shown.text
    assert world.server.object_at("ConfigMap", "shop", "prices")["data"] == {"price": "1"}
    changed = await world.call("upgrade", second, release="web", chart=CHART)
    assert changed.outcome == "succeeded", changed.text
    assert world.server.object_at("ConfigMap", "shop", "prices")["data"] == {"price": "2"}

    assert "web" in (await world.call("list")).text
    assert "STATUS: deployed" in (await world.call("status", release="web")).text
    history = (await world.call("history", release="web")).text
    assert len([line for line in history.splitlines() if line[:1].isdigit()]) == 2
    back = await world.call("rollback", release="web")
    assert back.outcome == "succeeded", back.text
    assert world.server.object_at("ConfigMap", "shop", "prices")["data"] == {"price": "1"}
    gone = await world.call("uninstall", release="web")
    assert gone.outcome == "succeeded", gone.text
    assert world.server.kinds() == ["Namespace/shop"]


@pytest.mark.rule("RT-62")
async def test_chart_with_a_kind_that_may_not_be_touched_or_that_is_not_listed_changes_nothing(
    world: World,
) -> None:
    tree = await world.tree(more=SECRET)
    with pytest.raises(PolicyDenied, match="secret"):
        await world.call("upgrade", tree, release="web", chart=CHART)
    with pytest.raises(PolicyDenied, match=r"targets\.charts"):
        await world.call("upgrade", tree, release="web", chart="./other")
    assert world.server.kinds() == ["Namespace/shop"]
    missing = await world.call("status", release="absent")
    assert (missing.outcome, "not found" in missing.text) == ("failed", True)
