"""Bytes on this machine and elsewhere: folders, fsspec file systems, copies."""
