"""Pure: which host CPUs and which memory a VM gets, why, and what would be better."""
