"""What a user declares: a target, the locks and calls in it, and contracts on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from pytest_vramsettle.contracts import checking
from pytest_vramsettle.contracts.analysis.engine import Scope
from pytest_vramsettle.contracts.contradictions import refuse_contradictions
from pytest_vramsettle.contracts.errors import ContractError, ContractFailure
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.source import Parts, Project
from pytest_vramsettle.contracts.verdicts import Outcome

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.tracing import LockTrace


@dataclass(frozen=True, slots=True)
class NamedLock:
    """A lock by its name: an attribute of the class ('_lock', 'state.lock'), or a global of its module."""

    name: str

    @property
    def acquired(self) -> Acquired:
        """The moment in which it was taken."""
        return Acquired(self)


@dataclass(frozen=True, slots=True)
class Acquired:
    """For `must_recheck(..., after=lock.acquired)`."""

    lock: NamedLock


@dataclass(frozen=True, repr=False)
class Contract:
    """One declaration. `check_static` reads the source, `check_run` a trace of `traced_locks`."""

    target: Target = field(repr=False, compare=False)
    rule: str
    text: str
    patterns: Mapping[str, Pattern] = field(default_factory=dict)
    lock: str = ""
    within: str | None = None
    name: str = ""
    every_exit: bool = True
    only_if: bool = False
    proceed_if: bool = False
    still_held: bool = True
    waive: str | None = None
    id: str = ""

    def __repr__(self) -> str:
        return f"<Contract {self.id}: {self.text}>"

    def check_static(self, project: Project | None = None) -> Outcome:
        """Raises `ContractError` where the contract itself is wrong; `project` takes the place of the target's own."""
        scope = self.target.scope if project is None else make_scope(project, self.target.spec)
        return checking.check(self, scope)

    def check_run(self, trace: LockTrace) -> Outcome:
        """The same contract on what happened: `must_not_hold` alone says something of a run.

        Its note names where the call was made, and where the lock was taken.
        """
        from pytest_vramsettle.contracts.tracing import check_trace

        return check_trace(self, trace)

    def enforce(self) -> Outcome:
        """Raises `ContractFailure` with the report, unless it is kept, or fails and is waived."""
        __tracebackhide__ = True
        from pytest_vramsettle.contracts.render import render

        outcome = self.check_static()
        if not outcome.passes:
            raise ContractFailure(render(outcome))
        return outcome


class Target:
    """A class ('myapp.backend:Backend') or a module ('myapp.backend'), by name; it is read, never imported.

    Each `must_…` declares a contract and returns it. With `enforce`, as the fixture has it, it is checked at once.
    Calls and attributes are named as in the class: `call("_process.terminate")` is `self._process.terminate()`. Where a
    call is wanted its name alone will do.
    """

    def __init__(self, spec: str, project: Project, *, enforce: bool = False) -> None:
        self.spec = spec
        self.project = project
        self.contracts: list[Contract] = []
        self._enforce = enforce

    @cached_property
    def scope(self) -> Scope:
        """Raises `SourceError` where the module or class is not there, or a file does not parse."""
        return make_scope(self.project, self.spec)

    def lock(self, name: str) -> NamedLock:
        """A lock, or a dict of locks, each of which counts."""
        return NamedLock(_checked("lock", name))

    def call(self, name: str) -> Pattern:
        """A call: of a method, a function of the module, or an imported one ('subprocess.Popen')."""
        return Pattern("call", _parts("call", name))

    def write(self, name: str, *, value: str | None = None) -> Pattern:
        """An assignment to an attribute; with `value` ('time.monotonic()') of what that call returned."""
        return Pattern("write", _parts("write", name), _parts("value", value.removesuffix("()")) if value else ())

    def recording(self, name: str) -> Pattern:
        """`with self.NAME.recording(...):`, which stamps on every way out."""
        return Pattern("recording", _parts("recording", name))

    def must_not_hold(self, lock: NamedLock, *, at: str | Pattern, waive: str | None = None) -> Contract:
        """The call is never reached with that lock held, by whatever helpers."""
        __tracebackhide__ = True
        at = self._as_call(at)
        _expect(NamedLock, "lock('_lock')", lock=lock)
        _expect_calls(at=at)
        text = f"{self.spec} must not hold {lock.name} at {at.text}"
        return self._declare(Contract(self, "must_not_hold", text, {"at": at}, lock=lock.name, waive=waive))

    def must_precede(
        self,
        first: str | Pattern,
        *,
        before: str | Pattern,
        within: str,
        reset_by: str | Pattern | None = None,
        waive: str | None = None,
    ) -> Contract:
        """On every path through `within` to `before`, `first` has returned, since the last `reset_by`."""
        __tracebackhide__ = True
        first, before = self._as_call(first), self._as_call(before)
        reset_by = self._as_call(reset_by) if reset_by is not None else None
        _expect_calls(first=first, before=before, reset_by=reset_by or before)
        text = f"{self.spec}: {first.text} must precede {before.text} in {within}"
        patterns = {"first": first, "then": before}
        if reset_by is not None:
            patterns["reset"] = reset_by
            text += f", reset by {reset_by.text}"
        return self._declare(Contract(self, "must_precede", text, patterns, within=within, waive=waive))

    def must_follow(
        self,
        first: str | Pattern,
        *,
        after: str | Pattern,
        within: str,
        every_exit: bool = True,
        only_if: bool = False,
        waive: str | None = None,
    ) -> Contract:
        """Each way out of `within` has done `first` after `after`; with `only_if` none has done it otherwise.

        `every_exit=False` leaves out the ways out by an exception.
        """
        __tracebackhide__ = True
        first, after = self._as_call(first), self._as_call(after)
        _expect(Pattern, "call('_wait') or write('_stamp')", first=first)
        _expect_calls(after=after)
        text = f"{self.spec}: {first.text} must follow {after.text} in {within}"
        text += (", and only then" if only_if else "") + ("" if every_exit else ", exceptions aside")
        contract = Contract(
            self, "must_follow", text, {"stamp": first, "kill": after}, within=within, every_exit=every_exit,
            only_if=only_if, waive=waive,
        )  # fmt: skip
        return self._declare(contract)

    def must_recheck(
        self,
        call: str | Pattern,
        *,
        after: Acquired,
        before: str | Pattern,
        within: str,
        proceed_if: bool = False,
        still_held: bool = True,
        waive: str | None = None,
    ) -> Contract:
        """After the lock was taken `call` is asked, and `before` is reached only where it said `proceed_if`.

        With `still_held` the lock must not have been let go in between: an answer from before that is stale.
        """
        __tracebackhide__ = True
        check, before = self._as_call(call), self._as_call(before)
        _expect(Acquired, "lock('_lock').acquired", after=after)
        _expect_calls(call=check, before=before)
        text = f"{self.spec}: {check.text} must be checked after {after.lock.name} is taken, before {before.text}"
        text += f" in {within}"
        contract = Contract(
            self, "must_recheck", text, {"check": check, "then": before}, lock=after.lock.name, within=within,
            proceed_if=proceed_if, still_held=still_held, waive=waive,
        )  # fmt: skip
        return self._declare(contract)

    def must_not_name(self, name: str, *, within: str | None = None, waive: str | None = None) -> Contract:
        """The name is no identifier, attribute or keyword, and no text given to setattr() and its like.

        It is looked for in the whole module of the class; of its bases and mixins in other modules of the project in
        the classes, and in what is there in no class. With a module as the target: in that module. Modules that are
        imported are others. `within`: in that function alone.
        """
        __tracebackhide__ = True
        text = f"{self.spec} must not name {_checked('name', name)}" + (f" in {within}" if within else "")
        return self._declare(Contract(self, "must_not_name", text, name=name, within=within, waive=waive))

    def _as_call(self, given: str | Pattern) -> Pattern:
        return self.call(given) if isinstance(given, str) else given

    def _declare(self, contract: Contract) -> Contract:
        __tracebackhide__ = True
        if contract.waive is not None and not contract.waive.strip():
            raise ContractError(f"{contract.text}: waive= takes the reason, in words")
        refuse_contradictions([*self.contracts, contract])
        contract = replace(contract, id=contract.id or readable_id(contract))
        self.contracts.append(contract)
        if self._enforce:
            contract.enforce()
        return contract


def readable_id(contract: Contract) -> str:
    """'Backend-must_not_hold-_lock-at-_wait'."""
    owner = contract.target.spec.rpartition(":")[2]
    parts = [owner, contract.rule]
    if contract.lock:
        parts.append(contract.lock)
    parts += [".".join(pattern.parts) for pattern in contract.patterns.values()]
    if contract.name:
        parts.append(contract.name)
    return "-".join(parts)


def make_scope(project: Project, spec: str) -> Scope:
    name, _, class_name = spec.partition(":")
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise ContractError(f"{spec!r} names no target: write 'package.module:Class', or 'package.module'")
    module = project.module(name)
    cls = project.class_of(module, class_name) if class_name else None
    modules = list(project.imported(module))
    for base in project.mro(cls) if cls is not None else []:
        modules += [each for each in project.imported(base.module) if each not in modules]
    return Scope(project, module, cls, tuple(modules))


def _expect(kind: type, example: str, **given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, kind):
            raise ContractError(f"{name}= takes what backend.{example} gives, not {value!r}")


def _expect_calls(**given: object) -> None:
    _expect(Pattern, "call('_wait')", **given)
    for name, value in given.items():
        if isinstance(value, Pattern) and value.kind != "call":
            raise ContractError(f"{name}= takes a call, as backend.call('_wait') gives it, not {value.text!r}")


def _checked(what: str, name: str) -> str:
    return ".".join(_parts(what, name))


def _parts(what: str, name: str) -> Parts:
    parts = tuple(name.removeprefix("self.").removesuffix("()").split("."))
    if not all(part.isidentifier() for part in parts):
        raise ContractError(f"{what}({name!r}): a dotted name is wanted, such as '_lock' or 'subprocess.Popen'")
    return parts


def lock_contract(
    spec: str,
    *,
    roots: Iterable[str | FilePath] = (),
    sources: Mapping[str, str] | None = None,
    enforce: bool = False,
) -> Target:
    """A target outside of pytest: modules are looked for in `roots` (default: sys.path) or in `sources`.

    `sources` has texts by their modules' names or files: `{"app.backend": "...", "app/tools/__init__.py": "..."}`; a
    package is one of the latter kind, 'app.tools.__init__', or a name that begins those of others. Raises
    `SourceError` for other keys.
    """
    import sys

    return Target(spec, Project(roots or [entry or "." for entry in sys.path], sources=sources), enforce=enforce)


LockContract = Callable[[str], Target]
"""The fixture's type."""
