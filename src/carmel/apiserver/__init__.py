"""The Kubernetes-style HTTP surface: discovery, list, watch, patch, tables, streams, metrics."""
