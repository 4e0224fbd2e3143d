"""One controller a kind: watch, compare what is wanted with what is, plan, act, write status."""
