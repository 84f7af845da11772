"""Batches, to look at and to submit: /batches, for owners of keys, for visitors with a login, and for administrators."""
