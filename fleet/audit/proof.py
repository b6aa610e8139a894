"""A proof that one event was recorded: it can be checked without the fleet that made it (EV-32)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fleet.audit.chain import ChainCheck, RawEntry
from fleet.audit.checkpoint import Checkpoint, Leaf, SignedCheckpoint
from fleet.audit.key_ring import KeyRing
from fleet.audit.merkle import inclusion_path, is_included, leaf_hash
from fleet.audit.note import SignCheck
from fleet.events.envelope import Head
from fleet.kernel.errors import InvalidInput, LogCorrupted
from fleet.kernel.types import Frozen

MAX_PROOF_BYTES = 512 * 1024 * 1024
"""A longer file is not read."""

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class _Entry(Frozen):
    id: str = Field(max_length=40)
    fields: dict[str, _Base64]


class Proof(Frozen):
    """Event `version` of the leaf's stream: all entries up to the leaf, the leaf's path in the tree, the checkpoint."""

    format: Literal["swe-fleet/proof/1"] = "swe-fleet/proof/1"
    version: int = Field(ge=1)
    entries: tuple[_Entry, ...]
    leaf: Leaf
    index: int = Field(ge=0)
    path: tuple[_Hash, ...] = Field(max_length=64)
    checkpoint: str

    @classmethod
    def parse(cls, raw: bytes) -> Proof:
        """The proof of a file. Raises InvalidInput."""
        if len(raw) > MAX_PROOF_BYTES:
            raise InvalidInput(f"a proof of {len(raw)} bytes is not read: at most {MAX_PROOF_BYTES} are")
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InvalidInput(f"this is no proof of an event: {place}: {first['msg']}") from error


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows: this entry was there when the checkpoint was signed."""

    entry: RawEntry
    leaf: Leaf
    checkpoint: Checkpoint


def make_proof(signed: SignedCheckpoint, leaf: Leaf, entries: Sequence[RawEntry], *, version: int) -> Proof:
    """The proof for event `version`; `entries` are those of the leaf's stream from version 1 on."""
    index = signed.leaves.index(leaf)
    return Proof(
        version=version,
        entries=tuple(
            _Entry(id=e.entry_id, fields={n: base64.b64encode(v).decode() for n, v in e.fields.items()})
            for e in entries[: leaf.version]
        ),
        leaf=leaf,
        index=index,
        path=tuple(sibling.hex() for sibling in inclusion_path(signed.leaf_hashes, index)),
        checkpoint=signed.note,
    )


def check_proof(proof: Proof, keys: KeyRing, check: SignCheck) -> Proven:
    """The event that the proof shows.

    Raises:
        LogCorrupted: signature, tree or chain do not hold; says which.
        InvalidInput: the checkpoint has not the form of one.
    """
    checkpoint = keys.open(proof.checkpoint, check)
    path = [bytes.fromhex(sibling) for sibling in proof.path]
    leaf = leaf_hash(proof.leaf.encoded)
    if not is_included(leaf, index=proof.index, size=checkpoint.size, path=path, root=checkpoint.root):
        raise _disproved(f"checkpoint {checkpoint.sequence} does not hold this head of {proof.leaf.stream}")
    entries = [
        RawEntry(e.id, {name: base64.b64decode(value) for name, value in e.fields.items()}) for e in proof.entries
    ]
    chain = ChainCheck(proof.leaf.stream)
    chain.take(entries)
    chain.close(Head(proof.leaf.version, proof.leaf.hash))
    if chain.findings:
        raise _disproved(str(chain.findings[0]))
    if proof.version > proof.leaf.version:
        raise _disproved(f"it ends at version {proof.leaf.version}, before version {proof.version}")
    return Proven(entries[proof.version - 1], proof.leaf, checkpoint)


def _disproved(why: str) -> LogCorrupted:
    return LogCorrupted(f"the proof does not hold: {why}")
