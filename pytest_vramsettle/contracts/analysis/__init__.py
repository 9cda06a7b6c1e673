"""Walks through functions along every path, and knows what values are: where a rule is broken on one, it says so."""
