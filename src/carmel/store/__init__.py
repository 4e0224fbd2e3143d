"""Where resources live: one protocol, and what stands behind it."""
