"""Repository knowledge: what files hold, which of them a task is about, and where in them."""

from fleet.knowledge.cite import Citation, Note, RankedNote, cite, rank_notes
from fleet.knowledge.extract import MAX_BYTES, extract
from fleet.knowledge.facts import FactKey, FileFacts, Symbol, blob_in, decode_facts, encode_facts, fact_key, language_in
from fleet.knowledge.index import CodeIndex, IndexedFile
from fleet.knowledge.languages import LANGUAGES, Language, Role, language_of, role_of
from fleet.knowledge.rank import Question, RankedFile, ask, best_symbol, rank_files
from fleet.knowledge.words import Terms, terms_of, words_in

__all__ = [
    "LANGUAGES",
    "MAX_BYTES",
    "Citation",
    "CodeIndex",
    "FactKey",
    "FileFacts",
    "IndexedFile",
    "Language",
    "Note",
    "Question",
    "RankedFile",
    "RankedNote",
    "Role",
    "Symbol",
    "Terms",
    "ask",
    "best_symbol",
    "blob_in",
    "cite",
    "decode_facts",
    "encode_facts",
    "extract",
    "fact_key",
    "language_in",
    "language_of",
    "rank_files",
    "rank_notes",
    "role_of",
    "terms_of",
    "words_in",
]
