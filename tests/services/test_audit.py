"""The audit on the real log store: what is tampered with is named, what is not is left in peace (F21)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet, forget_fleet, save_fleet
from fleet.audit.chain import FIELDS, RawEntry
from fleet.audit.files.ed25519 import Ed25519Verifier, KeyFile, read_public_key
from fleet.audit.files.witness import CheckpointFolder, FolderWitness
from fleet.audit.redis import RedisCheckpointStore, RedisRawLog
from fleet.audit.service.auditor import Auditor
from fleet.audit.service.notary import Notary
from fleet.cli.app import app
from fleet.desk.archive import Archivist
from fleet.events.envelope import Head
from fleet.events.project import StoryTombstoned
from fleet.events.story import StoryCancelled
from fleet.kernel.clock import Clock, MemoryClock, SystemClock
from fleet.kernel.errors import LogRegressed
from fleet.kernel.ids import StreamId
from fleet.log.port import Appended
from fleet.log.redis.keys import partition_of, stream_key, streams_key
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog, words_of
from fleet.log.rules import chain
from fleet.story.commands.command import Caller
from fleet.trees.files import FileBlobStore
from tests.support.stores import ACTOR, append_request, empty_database, eventually, own_database
from tests.support.story_events import STORY, StoryLog, story

ONE, TWO = StreamId("story:st-one"), StreamId("story:st-two")
LOG_ONE = stream_key(ONE, "log")
DATABASE = 11


@dataclass
class Fleet:
    """A log with a notary, a home with its key and copies, and the commands that look at them."""

    client: Redis
    url: str
    home: Path
    heads: dict[StreamId, Head] = field(default_factory=dict[StreamId, Head])
    announced: list[str] = field(default_factory=list[str])

    @property
    def folder(self) -> Path:
        return self.home / "audit" / "exported"

    @property
    def blobs(self) -> FileBlobStore:
        return FileBlobStore(self.home / "blobs")

    @property
    def addresses(self) -> Addresses:
        return Addresses(
            redis_url=self.url,
            cache_url=self.url,
            neo4j_uri="bolt://x",
            neo4j_user="",
            neo4j_password="",
            neo4j_database="neo4j",
        )

    def notary(self, clock: Clock | None = None) -> Notary:
        if clock is None:
            clock = MemoryClock()
            clock.advance(60.0 * len(self.announced))
        return Notary(
            RedisEventLog(self.client),
            RedisRawLog(self.client),
            RedisCheckpointStore(self.client),
            CheckpointFolder(self.folder, announce=self.announced.append),
            signer=KeyFile(self.home / "audit" / "notary.key"),
            verifier=Ed25519Verifier(),
            clock=clock,
            interval_s=3600,
            announce=self.announced.append,
        )

    def auditor(self) -> Auditor:
        return Auditor(
            RedisRawLog(self.client),
            RedisCheckpointStore(self.client),
            CheckpointFolder(self.folder),
            blobs=self.blobs,
            key=read_public_key(self.home / "audit" / "notary.pub"),
            verifier=Ed25519Verifier(),
        )

    async def append(self, stream: StreamId, *bodies: bytes, closes: bool = False) -> None:
        head = await RedisEventLog(self.client).head(stream)
        outcome = await RedisEventLog(self.client).append(append_request(stream, head, bodies=bodies, closes=closes))
        assert isinstance(outcome, Appended)
        self.heads[stream] = outcome.head

    async def command(self, *args: str) -> Result:
        environ = {
            "FLEET_HOME": str(self.home),
            "FLEET_CONFIG": None,
            "FLEET_REDIS_URL": None,
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        return await asyncio.to_thread(CliRunner().invoke, app, list(args), env=environ)

    async def verify(self, *args: str) -> tuple[int, dict[str, Any]]:
        result = await self.command("audit", "verify", "--json", *args)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout.splitlines()[-1])

    async def found(self, *args: str) -> set[tuple[str, str]]:
        """Verdict and subject of every finding; the exit code says the same."""
        code, told = await self.verify(*args)
        assert code == (4 if told["findings"] else 0)
        assert told["ok"] is (not told["findings"])
        return {(finding["verdict"], finding["subject"]) for finding in told["findings"]}

    async def rewrite(self, stream: StreamId, entries: list[RawEntry], *, head: Head | None = None) -> None:
        """The stream holds these entries, as someone with the password of the store would leave them."""
        key = stream_key(stream, "log")
        await self.client.delete(key)
        for entry in entries:
            words = [part for name in FIELDS for part in (name, entry.fields[name])]
            await self.client.execute_command("XADD", key, entry.entry_id, *words)
        if head is not None:
            await self.client.hset(stream_key(stream, "head"), mapping={"v": head.version, "h": head.hash})

    async def entries(self, stream: StreamId) -> list[RawEntry]:
        return await RedisRawLog(self.client).entries(stream, limit=1000)


@pytest.fixture
async def fleet(redis_url: str, tmp_path: Path) -> AsyncGenerator[Fleet]:
    """Two streams, attested twice: at 6 and 3 events, and at 10 and 5."""
    url = own_database(redis_url, DATABASE)
    async with empty_database(url) as client:
        made = Fleet(client, url, tmp_path / "home")
        made.home.mkdir()
        running = RunningFleet(
            home=made.home, supervisor=ProcessIdentity.of_self(), started_at_ms=1, addresses=made.addresses
        )
        save_fleet(running)
        await made.append(ONE, *(b'{"n":%d}' % n for n in range(1, 7)))
        await made.append(TWO, b"1", b"2", b"3")
        assert (await made.notary().checkpoint()).sequence == 1
        await made.append(ONE, *(b'{"n":%d}' % n for n in range(7, 11)))
        await made.append(TWO, b"4", b"5")
        assert (await made.notary().checkpoint()).sequence == 2
        yield made


async def copy_of(client: Redis) -> dict[bytes, bytes]:
    """Every key of the store as it is now: a backup."""
    return {key: await client.dump(key) for key in await client.keys("*")}


async def restore(client: Redis, copy: dict[bytes, bytes]) -> None:
    """The store is as it was when the copy was made."""
    await client.flushdb()
    for key, value in copy.items():
        await client.restore(key, 0, value)


def changed(entry: RawEntry, **fields: bytes) -> RawEntry:
    return RawEntry(entry.entry_id, {**entry.fields, **fields})


@pytest.mark.rule("EV-9", "EV-32")
async def test_clean_log_verifies_and_the_command_ends_with_zero(fleet: Fleet) -> None:
    code, told = await fleet.verify()

    assert (code, told["ok"], told["findings"]) == (0, True, [])
    assert (told["streams"], told["events"], told["checkpoints"], told["exported"]) == (2, 15, 2, 2)
    assert await fleet.client.xlen("fleet:audit:checkpoints") == 2
    assert [line.split(":")[0] for line in fleet.announced] == ["checkpoint 1", "checkpoint 2"]
    result = await fleet.command("audit", "verify")
    assert "ok: everything is as it was recorded" in result.stdout


@pytest.mark.rule("EV-32")
async def test_events_after_the_last_checkpoint_verify_too(fleet: Fleet) -> None:
    await fleet.append(ONE, b"later")
    await fleet.append(StreamId("story:st-new"), b"first")

    assert await fleet.found() == set()


@pytest.mark.rule("EV-32")
async def test_changed_byte_of_a_body_is_altered(fleet: Fleet) -> None:
    entries = await fleet.entries(ONE)
    entries[3] = changed(entries[3], b=b'{"n":5}')
    await fleet.rewrite(ONE, entries)

    _, told = await fleet.verify()

    assert [(f["verdict"], f["subject"], f["version"]) for f in told["findings"]] == [("altered", ONE, 4)]


@pytest.mark.rule("EV-32")
async def test_dropped_tail_is_missing(fleet: Fleet) -> None:
    await fleet.client.xdel(LOG_ONE, "9-0", "10-0")

    _, told = await fleet.verify()

    assert [(f["verdict"], f["subject"], f["version"]) for f in told["findings"]] == [("missing", ONE, 9)]


@pytest.mark.rule("EV-32")
async def test_dropped_tail_whose_head_was_put_right_is_rolled_back(fleet: Fleet) -> None:
    entries = await fleet.entries(ONE)
    await fleet.rewrite(ONE, entries[:8], head=Head(8, entries[7].fields["h"].decode()))

    assert await fleet.found() == {("rolled back", ONE)}


@pytest.mark.rule("EV-32")
async def test_two_entries_that_changed_places_are_reordered(fleet: Fleet) -> None:
    entries = await fleet.entries(ONE)
    third, fourth = entries[2], entries[3]
    entries[2], entries[3] = RawEntry("3-0", fourth.fields), RawEntry("4-0", third.fields)
    await fleet.rewrite(ONE, entries)

    assert await fleet.found() == {("reordered", ONE)}


@pytest.mark.rule("EV-32")
async def test_deleted_story_is_named(fleet: Fleet) -> None:
    await fleet.client.delete(LOG_ONE, stream_key(ONE, "head"), stream_key(ONE, "cmds"))
    await fleet.client.srem(streams_key(partition_of(ONE)), ONE)

    assert await fleet.found() == {("deleted", ONE)}


@pytest.mark.rule("EV-32")
async def test_chain_rewritten_with_right_hashes_is_forked(fleet: Fleet) -> None:
    written = chain(append_request(ONE, bodies=[b'{"n":%d,"edited":1}' % n for n in range(1, 11)]))
    entries = [RawEntry(f"{e.version}-0", dict(zip(FIELDS, map(as_bytes, words_of(e)), strict=True))) for e in written]
    await fleet.rewrite(ONE, entries, head=Head(10, written[-1].hash))

    assert await fleet.found() == {("forked", ONE)}


def as_bytes(word: str | bytes | int) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


@pytest.mark.rule("EV-32")
async def test_checkpoint_rewritten_without_the_key_has_a_bad_signature(fleet: Fleet, tmp_path: Path) -> None:
    store = RedisCheckpointStore(fleet.client)
    first, second = await store.notes()
    text, _, signature = second.note.rpartition("\n\n")
    dash, name, encoded = signature.split()
    # The forger names the right key; what he lacks is its private half.
    forged = base64.b64decode(encoded)[:4] + KeyFile(tmp_path / "forger.key").sign(text.encode() + b"\n")
    await fleet.client.delete("fleet:audit:checkpoints")
    await fleet.client.xadd("fleet:audit:checkpoints", {"n": first.note}, "1-0")
    note = f"{text}\n\n{dash} {name} {base64.b64encode(forged).decode()}\n"
    await fleet.client.xadd("fleet:audit:checkpoints", {"n": note}, "2-0")

    assert ("bad signature", "checkpoint") in await fleet.found()


@pytest.mark.rule("EV-19", "EV-32")
async def test_restored_backup_is_rolled_back_and_its_streams_are_refused(fleet: Fleet) -> None:
    yesterday = await copy_of(fleet.client)
    await fleet.append(ONE, b"11", b"12")
    await fleet.notary().checkpoint()
    await restore(fleet.client, yesterday)

    assert await fleet.found() == {("rolled back", ONE), ("rolled back", "checkpoint")}

    notarized = await fleet.notary().checkpoint()
    assert (notarized.restored, [str(f.subject) for f in notarized.findings]) == (1, [ONE])
    with pytest.raises(LogRegressed):
        await fleet.append(ONE, b"11 again")
    await fleet.append(TWO, b"6")
    assert (await fleet.notary().checkpoint()).sequence == 5
    assert await fleet.found() == {("rolled back", ONE)}


@pytest.mark.rule("EV-19")
@pytest.mark.door("fleet accept-loss", stand_in="a log store that was set back")
async def test_accepted_loss_is_known_to_the_next_checkpoint_and_the_verifier(fleet: Fleet) -> None:
    yesterday = await copy_of(fleet.client)
    await fleet.append(ONE, b"11", b"12")
    await fleet.notary().checkpoint()
    await restore(fleet.client, yesterday)
    await fleet.notary().checkpoint()
    witness = FolderWitness(fleet.folder)
    assert (await witness.attested(ONE) or Head()).version == 12

    short = await fleet.command("accept-loss", "st-one", "--reason", "so what")
    assert (short.exit_code, "10 to 4000" in short.stderr) == (2, True)
    done = await fleet.command("accept-loss", "st-one", "--reason", "the disk of the store died")

    assert done.exit_code == 0, done.output
    assert "2 events, versions 11 to 12" in done.stdout
    assert "fleet graph rebuild" in done.stdout
    assert await witness.attested(ONE) == Head(10, fleet_head(await fleet.entries(ONE)).hash)
    await fleet.append(ONE, b"11 anew", b"12 anew", b"13 anew")
    assert (await fleet.notary().checkpoint()).findings == ()
    code, told = await fleet.verify()
    assert (code, told["findings"]) == (0, [])
    (loss,) = told["accepted_losses"]
    assert (loss["stream"], loss["attested"]["version"], loss["present"]["version"]) == (ONE, 12, 10)
    assert (await witness.attested(ONE) or Head()).version == 13
    again = await fleet.command("accept-loss", "st-one", "--reason", "the disk of the store died")
    assert (again.exit_code, "nothing of story:st-one was lost" in again.stderr) == (2, True)


def fleet_head(entries: list[RawEntry]) -> Head:
    return Head(len(entries), entries[-1].fields["h"].decode())


@pytest.mark.rule("EV-19")
async def test_deleted_story_can_be_accepted_as_lost(fleet: Fleet) -> None:
    await fleet.client.delete(LOG_ONE, stream_key(ONE, "head"), stream_key(ONE, "cmds"))
    await fleet.client.srem(streams_key(partition_of(ONE)), ONE)
    (finding,) = (await fleet.notary().checkpoint()).findings
    assert finding.verdict == "deleted"

    done = await fleet.command("accept-loss", ONE, "--reason", "nobody needs this story", "--json")

    assert json.loads(done.stdout)["loss"]["present"]["version"] == 0
    notarized = await fleet.notary().checkpoint()
    assert (notarized.streams, notarized.findings) == (1, ())
    assert await fleet.found() == set()


@pytest.mark.rule("EV-32")
async def test_exported_checkpoint_from_elsewhere_shows_that_everything_here_went_back(
    fleet: Fleet, tmp_path: Path
) -> None:
    out = tmp_path / "safe"
    yesterday = await copy_of(fleet.client)
    await fleet.append(ONE, b"11")
    await fleet.notary().checkpoint()
    assert (await fleet.command("audit", "export", "--out", str(out))).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["1.json", "2.json", "3.json", "notary.pub"]
    await restore(fleet.client, yesterday)
    (fleet.folder / "3.json").unlink()

    assert await fleet.found() == set()
    kept, key = str(out / "3.json"), str(out / "notary.pub")
    assert await fleet.found("--checkpoint", kept, "--key", key) == {
        ("rolled back", ONE),
        ("rolled back", "checkpoint"),
    }


@pytest.mark.rule("EV-32")
async def test_lost_and_changed_copies_are_named(fleet: Fleet) -> None:
    first = fleet.folder / "1.json"
    document = json.loads(first.read_text())
    first.unlink()
    assert await fleet.found() == {("missing", "checkpoint")}

    document["leaves"][0]["version"] = 5
    first.write_text(json.dumps(document))
    assert await fleet.found() == {("altered", "checkpoint")}

    first.write_text("{")
    assert await fleet.found() == {("altered", "checkpoint")}


@pytest.mark.rule("EV-32")
async def test_proof_holds_without_the_fleet_and_a_changed_one_does_not(fleet: Fleet, tmp_path: Path) -> None:
    path, key = tmp_path / "proof.json", tmp_path / "notary.pub"
    key.write_bytes((fleet.home / "audit" / "notary.pub").read_bytes())
    made = await fleet.command("audit", "proof", "st-one", "4", "--out", str(path))
    assert made.exit_code == 0, made.output
    assert (await fleet.command("audit", "proof", "st-one", "11", "--out", str(path))).exit_code == 2
    forget_fleet(fleet.home)
    assert (await fleet.command("audit", "proof", "st-one", "4", "--out", str(path))).exit_code == 5

    away = Fleet(fleet.client, "", tmp_path / "elsewhere")
    good = await away.command("audit", "check-proof", str(path), "--key", str(key), "--json")
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout.splitlines()[-1])["checkpoint"] == 1

    document = json.loads(path.read_text())
    document["entries"][3]["fields"]["b"] = base64.b64encode(b'{"n":9}').decode()
    path.write_text(json.dumps(document))
    bad = await away.command("audit", "check-proof", str(path), "--key", str(key))
    assert (bad.exit_code, "altered" in bad.stderr) == (4, True)


@pytest.mark.rule("EV-32")
async def test_verify_without_a_running_fleet_names_the_missing_service(fleet: Fleet) -> None:
    forget_fleet(fleet.home)

    result = await fleet.command("audit", "verify")

    assert (result.exit_code, "no fleet is running" in result.stderr) == (5, True)


@pytest.mark.rule("EV-9")
async def test_story_that_closes_is_attested_within_seconds_although_the_period_is_an_hour(fleet: Fleet) -> None:
    witness = FolderWitness(fleet.folder)

    async def attested(stream: StreamId) -> int:
        return (await witness.attested(stream) or Head()).version

    for stream, closed_at in ((ONE, 11), (TWO, 6)):
        # The second notary takes the place of one that was ended in the middle of its work.
        task = asyncio.create_task(fleet.notary(SystemClock()).run())
        await fleet.append(stream, b"the end", closes=True)
        assert await eventually(lambda at=closed_at, of=stream: _equals(attested(of), at), within_s=30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await fleet.found() == set()


async def _equals(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted


@pytest.mark.rule("EV-9")
async def test_two_notaries_write_each_sequence_once(fleet: Fleet) -> None:
    for number in range(5):
        await fleet.append(ONE, b"%d" % number)
        both = await asyncio.gather(fleet.notary().checkpoint(), fleet.notary().checkpoint())
        assert {n.sequence for n in both} == {3 + number}

    assert await fleet.found() == set()


@pytest.fixture
async def archived(fleet: Fleet) -> StoryTombstoned:
    """A story that was attested, given up and archived, and then attested as archived."""
    log = RedisEventLog(fleet.client)
    await given_up().write_to(log)
    await fleet.notary().checkpoint()
    archivist = Archivist(
        log=log, leases=RedisLeaseStore(fleet.client), blobs=fleet.blobs, clock=SystemClock(), owner="archive/test"
    )
    done = await archivist.archive(STORY, caller=Caller(principal=ACTOR, roles=frozenset({"po"})))
    assert (await fleet.notary().checkpoint()).findings == ()
    return done


def given_up() -> StoryLog:
    log = StoryLog()
    for _, payload in story(until="scored").decoded:
        log.add(payload)
    return log.add(StoryCancelled(reason="nobody wants it any more"))


@pytest.mark.rule("EV-25", "EV-32")
async def test_archive_of_a_story_is_opened_and_a_changed_or_lost_one_is_named(
    fleet: Fleet, archived: StoryTombstoned, tmp_path: Path
) -> None:
    code, told = await fleet.verify()
    assert (code, told["findings"], told["archives"]) == (0, [], 1)
    proof = await fleet.command("audit", "proof", STORY, "2", "--out", str(tmp_path / "proof.json"))
    assert proof.exit_code == 0, proof.output
    assert (await fleet.command("audit", "check-proof", str(tmp_path / "proof.json"))).exit_code == 0

    path = fleet.blobs.path(archived.export_digest)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert await fleet.found() == {("altered", f"story:{STORY}")}
    result = await fleet.command("audit", "verify")
    assert f"altered: story:{STORY} version {archived.last_version}" in " ".join(result.stdout.split())

    path.unlink()
    assert await fleet.found() == {("missing", f"story:{STORY}")}
    path.write_bytes(whole)
    assert await fleet.found() == set()


@pytest.mark.rule("EV-25", "EV-32")
async def test_tombstone_that_was_turned_to_a_rewritten_archive_is_altered(
    fleet: Fleet, archived: StoryTombstoned
) -> None:
    forged = await fleet.blobs.put(b"another story altogether")
    stream = next(name for name in await RedisRawLog(fleet.client).listed() if name.startswith("project:"))
    entries = await fleet.entries(stream)
    body = entries[-1].fields["b"].replace(archived.export_digest.encode(), forged.encode())
    assert body != entries[-1].fields["b"]
    await fleet.rewrite(stream, [*entries[:-1], changed(entries[-1], b=body)])

    assert await fleet.found() == {("altered", stream), ("altered", f"story:{STORY}")}


async def test_stream_that_is_hidden_from_the_list_is_found(fleet: Fleet) -> None:
    await fleet.append(StreamId("story:st-new"), b"1")
    await fleet.client.srem(streams_key(partition_of(StreamId("story:st-new"))), "story:st-new")
    await fleet.client.sadd(streams_key("03"), "no stream", "story:st-empty")

    assert await fleet.found() == {("altered", "story:st-new"), ("deleted", "story:st-empty")}


async def test_damaged_head_and_foreign_keys_do_not_stop_the_audit(fleet: Fleet) -> None:
    await fleet.client.hset(stream_key(ONE, "head"), "v", "many")
    await fleet.client.xadd("fleet:{p00}:no stream:log", {"x": "y"})
    await fleet.client.set("fleet:audit:heads", "[")

    assert await fleet.found() == {("missing", ONE), ("altered", "checkpoint")}


@pytest.mark.rule("EV-32")
async def test_key_is_rotated_while_the_fleet_runs_and_everything_still_verifies(fleet: Fleet, tmp_path: Path) -> None:
    notary = fleet.notary()
    await notary.checkpoint()
    old, proof, late = tmp_path / "old.pub", tmp_path / "before.json", tmp_path / "after.json"
    old.write_bytes((fleet.home / "audit" / "notary.pub").read_bytes())
    assert (await fleet.command("audit", "proof", str(ONE), "1", "--out", str(proof))).exit_code == 0
    told = json.loads((await fleet.command("audit", "rotate-key", "--json")).stdout)

    await notary.checkpoint()
    await fleet.append(ONE, b"after")
    await notary.checkpoint()
    assert read_public_key(fleet.home / "audit" / "notary.pub").text == told["successor"]
    assert await fleet.found() == set()
    assert await fleet.found("--key", str(old)) == set()
    assert (await fleet.command("audit", "proof", str(ONE), "11", "--out", str(late))).exit_code == 0
    for made in (proof, late):
        assert (await fleet.command("audit", "check-proof", str(made))).exit_code == 0
    out = tmp_path / "out"
    assert (await fleet.command("audit", "export", "--out", str(out))).exit_code == 0
    assert len(list((out / "handovers").iterdir())) == 1
    for made in (proof, late):
        checked = await fleet.command("audit", "check-proof", str(made), "--key", str(out / "notary.pub"))
        assert checked.exit_code == 0, checked.output
