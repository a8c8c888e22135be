"""The identity of a run: digests of its code, of what that is bound to, and of its data."""
