"""Datastores, volumes and images; formats in and out."""
