"""Shared network parts under the names that papers use."""
