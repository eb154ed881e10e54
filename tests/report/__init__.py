"""Tests of reports, comparisons and reproduction."""
