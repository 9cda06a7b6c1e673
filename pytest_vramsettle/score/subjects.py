"""What is judged: a policy by name, anyone's policy, or anyone's wait function."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_vramsettle.policies import Policy, all_policies

UPSTREAM = ("max_wait", "interval", "tolerance_mib", "since_kill", "probe")
"""The keywords of the common wait. `probe()` returns [(index, free_mib), ...]."""


class SubjectError(ValueError):
    """There is nothing by that name that could be judged; the text says what was found instead."""


@dataclass(frozen=True, slots=True)
class PolicySubject:
    """A policy, which is run by the real wait with a kill record."""

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class FunctionSubject:
    """A wait of somebody's own. It is called with those of upstream's keywords that it takes, its defaults kept.

    That is `since_kill`, `time.monotonic()` at the death, and `probe`; the rest is its own affair.
    """

    name: str
    function: Callable[..., Any]
    takes: frozenset[str]


Subject = PolicySubject | FunctionSubject


def subject_named(name: str) -> Subject:
    """A policy's name, or `module:attribute` with a function, a Policy or a class of policies.

    The module is looked for as Python does, and in the working directory. Raises SubjectError.
    """
    if ":" not in name:
        policies = all_policies()
        if name in policies:
            return PolicySubject(name, policies[name])
        raise SubjectError(
            f"there is no policy {name!r}; the known ones are {', '.join(policies)}, and one of yours is "
            f"module:function or module:Policy"
        )
    return subject_of(name, imported(name))


def imported(name: str) -> object:
    """What `module:attribute` names, looked for as Python does and in the working directory. Raises SubjectError."""
    module_name, _, path = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # what a module raises while it is imported is what is wrong with it
        raise SubjectError(f"{name!r}: the module {module_name!r} cannot be imported: {_told(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise SubjectError(f"{name!r}: {module_name!r} has no {path!r}") from None
    return found


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def subject_of(name: str, found: object) -> Subject:
    """`found` as what can be judged, under that name. Raises SubjectError, which says why it cannot."""
    if inspect.isclass(found):
        try:
            made = found()
        except Exception as error:  # any constructor's
            raise SubjectError(f"{name!r}: the class cannot be made without arguments: {_told(error)}") from error
        if not isinstance(made, Policy):
            raise SubjectError(f"{name!r} is a class, but not of policies: it lacks {', '.join(_lacking(made))}")
        return PolicySubject(name, made)
    if isinstance(found, Policy):
        return PolicySubject(name, found)
    if not callable(found):
        raise SubjectError(f"{name!r} is {found!r}: neither a function nor a Policy (that lacks {_few(found)})")
    return FunctionSubject(name, found, _keywords(name, found))


def _keywords(name: str, function: Callable[..., Any]) -> frozenset[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise SubjectError(f"{name!r}: its signature cannot be read; wrap it in a function") from None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset(UPSTREAM)
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    wanting = [
        one.name
        for one in parameters
        if one.default is one.empty and one.name not in UPSTREAM and one.kind is not one.VAR_POSITIONAL
    ]
    if wanting:
        raise SubjectError(
            f"{name!r} wants {', '.join(wanting)}, which a wait is not given; what it may take is {', '.join(UPSTREAM)}"
        )
    if "probe" not in named:
        raise SubjectError(
            f"{name!r} takes no probe=, so it would look at this machine; what it may take is {', '.join(UPSTREAM)}"
        )
    return frozenset(named & set(UPSTREAM))


def _lacking(found: object) -> list[str]:
    wanted = ("name", "max_wait_ns", "attempt_ns", "wants_only_pending", "is_stale", "wants_holders")
    return [one for one in (*wanted, "decide", "decide_failure") if not hasattr(found, one)]


def _few(found: object) -> str:
    return ", ".join(_lacking(found)[:3])
