"""Tests of where steps run."""
