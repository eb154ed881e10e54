"""From runs to claims: tables, comparisons, one-file reports, reproduction of published scores."""
