"""Patches as pure functions: what an object is after a patch of one of Kubernetes' formats, and who owns its fields."""
