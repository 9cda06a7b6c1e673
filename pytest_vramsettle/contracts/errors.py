"""What is wrong with a contract itself, or with what it is to be checked on."""

from __future__ import annotations


class ContractError(ValueError):
    """Base: the text says what was asked, what is there, and how to mend it."""


class SourceError(ContractError):
    """A module, class or function that is not there, or a file that does not parse; names the file and the line."""


class ContractFailure(AssertionError):
    """A contract that is violated, cannot be told or is vacuous. The text is the whole report."""


class HoldFailure(AssertionError):
    """At run time: a lock that was held where it must not be, or for too long."""
