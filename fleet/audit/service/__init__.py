"""The notary, the auditor, proofs and exports of streams."""
