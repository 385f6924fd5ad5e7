"""Versions, the gate, promotion and its ledger: from a bundle to what serves, and back."""
