"""A client of the Kubernetes-style API: what every surface of Carmel is built on.

Synchronous and light: it imports neither pydantic nor the resources' models, so that ``carmel get vm`` starts quickly.
Kinds, their short names and their columns come from the server. Objects are plain JSON values.
"""
