"""Audit: chains recomputed from stored bytes, signed Merkle checkpoints over all streams, proofs (EV-32)."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.audit.attested import (
        Opened,
        StreamState,
        attested_heads,
        check_leaf,
        check_note,
        check_order,
        check_root,
        check_successor,
    )
    from fleet.audit.chain import FIELDS, ChainCheck, RawEntry, raw_entry
    from fleet.audit.checkpoint import (
        MAX_EXPORT_BYTES,
        Checkpoint,
        Handover,
        Leaf,
        LeafMark,
        SignedCheckpoint,
        open_checkpoint,
        parse_checkpoint,
        sign_checkpoint,
    )
    from fleet.audit.finding import Finding, Verdict
    from fleet.audit.key_ring import KeyRing, is_handover
    from fleet.audit.loss import AttestedHead, Loss, excused, loss_id, open_loss, parse_loss, sign_loss
    from fleet.audit.merkle import EMPTY_ROOT, inclusion_path, is_included, leaf_hash, merkle_root
    from fleet.audit.note import MAX_NOTE_BYTES, NoteKey, SignCheck, note_text, open_note, sign_note
    from fleet.audit.proof import MAX_PROOF_BYTES, Proof, Proven, check_proof, make_proof
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "EMPTY_ROOT",
    "FIELDS",
    "MAX_EXPORT_BYTES",
    "MAX_NOTE_BYTES",
    "MAX_PROOF_BYTES",
    "AttestedHead",
    "ChainCheck",
    "Checkpoint",
    "Finding",
    "Handover",
    "KeyRing",
    "Leaf",
    "LeafMark",
    "Loss",
    "NoteKey",
    "Opened",
    "Proof",
    "Proven",
    "RawEntry",
    "SignCheck",
    "SignedCheckpoint",
    "StreamState",
    "Verdict",
    "attested_heads",
    "check_leaf",
    "check_note",
    "check_order",
    "check_proof",
    "check_root",
    "check_successor",
    "excused",
    "inclusion_path",
    "is_handover",
    "is_included",
    "leaf_hash",
    "loss_id",
    "make_proof",
    "merkle_root",
    "note_text",
    "open_checkpoint",
    "open_loss",
    "open_note",
    "parse_checkpoint",
    "parse_loss",
    "raw_entry",
    "sign_checkpoint",
    "sign_loss",
    "sign_note",
]
