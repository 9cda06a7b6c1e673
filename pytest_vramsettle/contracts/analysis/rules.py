"""What each rule watches, and what it reports."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from pytest_vramsettle.contracts.analysis.engine import Exit, Rule, Run
from pytest_vramsettle.contracts.analysis.state import Doubt, Held, Place, State, Step
from pytest_vramsettle.contracts.analysis.values import Answer, Const, Lock, Result, Value, truth
from pytest_vramsettle.contracts.patterns import Pattern, value_matches
from pytest_vramsettle.contracts.source import Unit


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or (where there is `doubt`) something that cannot be told. `places` have a label each."""

    message: str
    places: tuple[tuple[str, Place], ...]
    chain: tuple[Place, ...] = ()
    trail: tuple[tuple[Place, bool], ...] = ()
    doubt: Doubt | None = None


def unclear(place: Place, reason: str, label: str = "here") -> Finding:
    """Something at this place that cannot be told."""
    return Finding(reason, ((label, place),), doubt=Doubt(place, reason))


@dataclass
class Watching(Rule):
    """What all rules share: `seen` says which roles were reached at all."""

    patterns: dict[str, Pattern]
    start: Hashable = ()
    findings: dict[Finding, None] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def reset(self) -> None:
        self.findings.clear()
        self.seen.clear()

    def report(
        self, message: str, state: State, places: list[tuple[str, Place]], chain: tuple[Place, ...] = ()
    ) -> None:
        finding = Finding(message, tuple(places), chain, trail(state.trail), state.doubt)
        same = next((each for each in self.findings if (each.message, each.places) == (message, finding.places)), None)
        if same is None:
            self.findings[finding] = None
        elif same.doubt and not finding.doubt:
            del self.findings[same]
            self.findings[finding] = None


def trail(step: Step | None) -> tuple[tuple[Place, bool], ...]:
    steps: list[tuple[Place, bool]] = []
    while step is not None and len(steps) < 8:
        steps.append((step.place, step.taken))
        step = step.before
    return tuple(reversed(steps))


@dataclass
class HoldRule(Watching):
    """The call is never reached with the lock held."""

    lock: str = ""
    leaks: dict[Finding, Unit] = field(default_factory=dict)

    def reset(self) -> None:
        super().reset()
        self.leaks.clear()

    def acquired(self, run: Run, lock: Lock, state: State, place: Place) -> State:
        self.seen.add("lock")
        return state

    def watches(self, states: Iterable[State]) -> bool:
        return any(state.held for state in states)

    def reach(self, run: Run, role: str, state: State, place: Place, chain: tuple[Place, ...]) -> State:
        self.seen.add(role)
        for held in state.held:
            self.report(
                f"{self.patterns[role].text} is reached while {self.lock} is held",
                state,
                [(f"{self.lock} is taken here", held.place), (f"{self.patterns[role].text} is called here", place)],
                chain or held.chain,
            )
        return state

    def left(self, run: Run, egress: Exit) -> None:
        for held in egress.state.held:
            self._leaked(run, held, egress)

    def _leaked(self, run: Run, held: Held, egress: Exit) -> None:
        """Whoever goes on in this thread goes on under the lock: what that is cannot be told."""
        doubt = Doubt(egress.place, f"{self.lock} is still held here, where the function is left")
        finding = Finding(
            f"{self.lock} may stay held after this function",
            ((f"{self.lock} is taken here", held.place), ("the function is left here", egress.place)),
            trail=trail(egress.state.trail),
            doubt=egress.state.doubt or doubt,
        )
        if run.root is not None:
            self.leaks.setdefault(finding, run.root)


@dataclass
class PrecedeRule(Watching):
    """`first` happens before `then` on every path, since the last `reset`."""

    start: Hashable = ("no", None)
    required = ("first",)

    def reach(self, run: Run, role: str, state: State, place: Place, chain: tuple[Place, ...]) -> State:
        self.seen.add(role)
        if role == "reset":
            return state.asked_anew().mark(("no", place))
        if role == "then":
            happened, since = state.marks
            if happened == "no":
                places = [(f"{self.patterns['then'].text} is called here", place)]
                if since is not None:
                    places.insert(0, (f"{self.patterns['reset'].text} is called here", since))
                what = f"{self.patterns['then'].text} is reached without {self.patterns['first'].text} before it"
                if since is not None:
                    what += f", since {self.patterns['reset'].text}"
                self.report(what, state, places, chain)
        return state

    def done(self, run: Run, role: str, state: State, place: Place, value: Value) -> list[tuple[State, Value]]:
        return [(state.mark(("yes", None)) if role == "first" else state, value)]


@dataclass
class FollowRule(Watching):
    """After `kill` each way out has stamped; with `only_if`, no way out has stamped without a kill.

    A kill that raised may have killed or not: it asks for no stamp, and permits one.
    """

    start: Hashable = ("no", None, False, None)
    every_exit: bool = True
    only_if: bool = False
    required = ("stamp", "kill")

    def is_late(self, state: State) -> bool:
        return bool(state.marks[0] != "no")

    def reach(self, run: Run, role: str, state: State, place: Place, chain: tuple[Place, ...]) -> State:
        self.seen.add(role)
        return state

    def failed(self, run: Run, role: str, state: State, place: Place) -> State:
        killed, where, stamped, stamp = state.marks
        if role == "kill" and killed == "no":
            return state.mark(("maybe", where, stamped, stamp))
        return state

    def done(self, run: Run, role: str, state: State, place: Place, value: Value) -> list[tuple[State, Value]]:
        killed, where, _, stamp = state.marks
        if role == "kill":
            return [(state.asked_anew().mark(("yes", place, False, stamp)), value)]
        # A `recording` stamps a death and nothing else: one without a kill stamps nothing.
        recording = self.patterns["stamp"].kind == "recording"
        return [(state.mark((killed, where, True, None if recording else place)), value)]

    def written(self, run: Run, role: str, state: State, place: Place, value: Value) -> State:
        self.seen.add(role)
        killed, where, _, stamp = state.marks
        matching = value_matches(self.patterns[role], value)
        if matching is False:
            return state.mark((killed, where, False, stamp))
        if matching is None:
            # It may be the stamp or not: neither reading lets the other one pass.
            return state.doubted(place, "what is written here is not known").mark((killed, where, False, place))
        if isinstance(value, Result) and self.patterns[role].value and killed != "no" and not value.late:
            return state.doubted(place, "the value was read before the kill")
        return state.mark((killed, where, True, place))

    def left(self, run: Run, egress: Exit) -> None:
        killed, where, stamped, stamp = egress.state.marks
        kill, write = self.patterns["kill"].text, self.patterns["stamp"].text
        how = "by an exception from here" if egress.kind == "raise" else "here"
        if killed == "yes" and not stamped and (self.every_exit or egress.kind != "raise"):
            places = [(f"{kill} is called here", where), (f"the function is left {how}", egress.place)]
            self.report(f"the function is left without {write} after {kill}", egress.state, places)
        if self.only_if and killed == "no" and stamp is not None:
            places = [("the stamp is written here", stamp), (f"the function is left {how}", egress.place)]
            self.report(f"{write} is done on a way without {kill}", egress.state, places)


@dataclass
class RecheckRule(Watching):
    """Since the lock was taken `check` was asked, and `then` is reached only where it said `proceed_if`.

    With `still_held`, `then` is reached before the lock is let go. The marks are where the lock was taken, the answer,
    and where what is asked was changed after that.
    """

    start: Hashable = (None, None, None)
    lock: str = ""
    proceed_if: bool = False
    still_held: bool = True
    required = ("check",)

    def acquired(self, run: Run, lock: Lock, state: State, place: Place) -> State:
        self.seen.add("lock")
        return state.asked_anew().mark((place, None, None))

    def touched(self, role: str, state: State, place: Place) -> State:
        taken, answer, _ = state.marks
        return state.mark((taken, answer, place)) if role == "check" and taken is not None else state

    def done(self, run: Run, role: str, state: State, place: Place, value: Value) -> list[tuple[State, Value]]:
        if role != "check":
            return [(state, value)]
        taken, _, changed = state.marks
        known = truth(value) if isinstance(value, Const) else None
        answers = (True, False) if known is None else (known,)
        return [(state.mark((taken, answer, changed)), Answer(answer)) for answer in answers]

    def reach(self, run: Run, role: str, state: State, place: Place, chain: tuple[Place, ...]) -> State:
        self.seen.add(role)
        if role != "then":
            return state
        taken, answer, changed = state.marks
        check, then = self.patterns["check"].text, self.patterns["then"].text
        places = [(f"{self.lock} is taken here", taken)] if taken is not None else []
        places.append((f"{then} is called here", place))
        if taken is None:
            self.report(f"{then} is reached on a way that does not take {self.lock}", state, places, chain)
        elif answer is None:
            self.report(f"{then} is reached without {check} since {self.lock} was taken", state, places, chain)
        elif answer is not self.proceed_if:
            self.report(f"{then} is reached although {check} said {answer}", state, places, chain)
        elif self.still_held and not state.held:
            self.report(
                f"{then} is reached after {self.lock}, under which {check} was asked, was let go", state, places, chain
            )
        elif changed is not None:
            doubted = state.doubted(changed, f"what {check} says was changed after {self.lock} was taken")
            self.report(f"{then} is reached, and {check} may not say what it did before", doubted, places, chain)
        return state


__all__ = ["Finding", "FollowRule", "HoldRule", "PrecedeRule", "RecheckRule", "Watching", "unclear"]
