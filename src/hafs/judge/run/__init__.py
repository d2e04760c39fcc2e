"""Asking a judge: calls, batches, ledger, budget and limits."""
