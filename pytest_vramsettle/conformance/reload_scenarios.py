"""Scenarios of a whole backend: real llama-server processes on a machine with little room for two."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from fake_gpu import Ramp
from pytest_vramsettle.conformance.model import LEVELS, Check, Scenario
from pytest_vramsettle.conformance.reload_checks import (
    LOAD_TIME,
    ends_soon_after,
    goes_on_or_says_so,
    nothing_runs,
    placed,
    restarted,
    same,
    says_so,
    status_is_true,
    took,
    waited,
)
from pytest_vramsettle.conformance.reload_session import OTHER_CONTEXT, ReloadPlay, Session
from pytest_vramsettle.conformance.settle_upstream import card
from pytest_vramsettle.conformance.stage import Stage

_SOON = 0.5
"""Seconds in which what needs no waiting is done."""
_LONGEST = 90.0
"""Seconds within which a load ends, whatever becomes of the memory."""
LINEAR = Ramp.linear("1500ms")
_SERVER = "a 24 GiB card; a server that holds 19.5 GiB of it, and takes 0.3 s to load"


def _machine(
    stage: Stage,
    *,
    reclaim: Ramp = LINEAR,
    weights: str = "18 GiB",
    ignores_sigterm: bool = False,
    crash: str | None = None,
    leaves_child: str | None = None,
) -> None:
    card(stage, "24 GiB")
    stage.server_command = stage.driver.llama_server(
        weights=weights,
        load_time=LOAD_TIME,
        reclaim=reclaim,
        ignores_sigterm=ignores_sigterm,
        crash=crash,
        leaves_child=leaves_child or False,
    )


def _two_cards(stage: Stage) -> None:
    """The first one is a neighbour's, and still: only the second one drains."""
    busy = card(stage, "24 GiB")
    stage.driver.process(busy, used="22 GiB", name="neighbour")
    _machine(stage)


# -- scripts


def _cold(session: Session) -> None:
    session.load("load")
    session.ask("status", "status")


def _again(session: Session) -> None:
    session.load("load")
    session.load("the same load")


def _reload(session: Session) -> None:
    session.load("load")
    session.load("reload", context=OTHER_CONTEXT)
    session.ask("status", "status")


def _reload_beside_a_child(session: Session) -> None:
    session.load("load")
    session.await_child()
    session.load("reload", context=OTHER_CONTEXT)


def _unload_then_load(session: Session) -> None:
    session.load("load")
    session.ask("unload", "unload")
    session.ask("status", "status")
    session.load("load after unload", cache_type="q8_0")


def _crash(session: Session) -> None:
    session.load("load")
    session.until(lambda: not session.servers())
    session.load("load after a crash")


def _status_beside(session: Session) -> None:
    session.load("load")
    pending = session.begin_load(context=OTHER_CONTEXT)
    session.facts["waiting"] = session.until_killed() and not pending.done
    session.ask("status", "status")
    session.finish("reload", pending)


def _beside(session: Session, method: str) -> None:
    session.load("load")
    pending = session.begin_load(context=OTHER_CONTEXT)
    session.facts["waiting"] = session.until_killed() and not pending.done
    session.ask(method, method)
    session.finish("reload", pending, may_raise=True)
    session.stage.clock.sleep(3.0)
    session.ask("status", "status")
    session.load("load after that", context=OTHER_CONTEXT)


def _fails(session: Session, **settings: str) -> None:
    session.load("bad load", may_raise=True, **settings)  # type: ignore[arg-type]  # texts alone
    session.ask("status", "status")
    session.load("good load")


def _out_of_memory(session: Session) -> None:
    """A neighbour takes what the cache was to have, while the weights are loaded."""
    pending = session.begin_load()
    session.until(lambda: bool(session.servers()), 10.0)
    neighbour = session.stage.driver.process(session.stage.driver.gpus[0], used="5 GiB", name="neighbour")
    session.finish("bad load", pending, may_raise=True)
    neighbour.exit(Ramp.immediate())
    session.stage.clock.sleep(3.0)  # what the failed server held is back: this is about state, not about waiting
    session.load("good load")


def _two_at_once(session: Session) -> None:
    first, second = session.begin_load(), session.begin_load(model="other.gguf")
    session.finish("one load", first)
    session.finish("the other load", second)
    session.ask("status", "status")


def _never(session: Session) -> None:
    session.load("load")
    session.load("reload", context=4096, may_raise=True)


def _closed(session: Session) -> None:
    session.load("load")


# -- scenarios

_reloads = functools.partial(Scenario, kind="reload", levels=LEVELS)
_WAITED: tuple[Check, ...] = (placed("load"), placed("reload", OTHER_CONTEXT), restarted("load", "reload"))


def _reclaimed(name: str, reclaim: Ramp, *, about: str, scripted: str, verified: bool = True) -> Scenario:
    return _reloads(
        name=name,
        levels=("verified",) if verified else LEVELS,
        about=about,
        scripted=f"{_SERVER}; a load with another context; {scripted}",
        machine=functools.partial(_machine, reclaim=reclaim),
        play=ReloadPlay(_reload),
        checks=(*_WAITED, took("reload", 20.0), status_is_true("status")),
    )


def _beside_a_wait(method: str, about: str) -> Scenario:
    return _reloads(
        name=f"{method}-while-it-waits",
        about=about,
        scripted=f"{_SERVER}; its memory comes back within 1.5 s; {method}() 0.3 s after the kill, then another load",
        machine=_machine,
        play=ReloadPlay(functools.partial(_beside, method=method)),
        checks=(
            waited("waiting"),
            took(method, _SOON),
            ends_soon_after("reload", method, _SOON),
            nothing_runs("reload"),
            nothing_runs("status"),
            says_so("reload", "load"),
            placed("load after that", OTHER_CONTEXT),
        ),
    )


RELOAD: Sequence[Scenario] = (
    _reloads(
        name="cold-load",
        about="nothing was ever killed: a first load must not wait",
        scripted=_SERVER,
        machine=_machine,
        play=ReloadPlay(_cold),
        checks=(placed("load"), took("load", LOAD_TIME + 1.0), status_is_true("status")),
    ),
    _reloads(
        name="identical-load",
        about="the same settings again are no reason to kill a server",
        scripted=f"{_SERVER}; the same load twice",
        machine=_machine,
        play=ReloadPlay(_again),
        checks=(placed("load"), same("load", "the same load")),
    ),
    _reclaimed(
        "reload",
        LINEAR,
        about="a reload that reads free memory too early puts layers on the CPU",
        scripted="memory comes back evenly within 1.5 s",
        verified=False,
    ),
    _reloads(
        name="two-gpus-one-draining",
        about="the first GPU stands still while the server's own one gives back",
        scripted=f"GPU 0: 2 GiB free, the rest a neighbour's. GPU 1: {_SERVER}; back evenly within 1.5 s",
        machine=_two_cards,
        play=ReloadPlay(_reload),
        checks=_WAITED,
    ),
    _reloads(
        name="unload-then-load",
        about="what one request has killed, the load of the next one has to wait for",
        scripted=f"{_SERVER}; unload, and at once a load with another cache type; back evenly within 1.5 s",
        machine=_machine,
        play=ReloadPlay(_unload_then_load),
        checks=(nothing_runs("unload"), status_is_true("status"), placed("load after unload")),
    ),
    _reloads(
        name="status-while-it-waits",
        about="a page that asks for the status must not hang because a load waits",
        scripted=f"{_SERVER}; its memory comes back within 1.5 s; status() 0.3 s after the kill",
        machine=_machine,
        play=ReloadPlay(_status_beside),
        checks=(waited("waiting"), took("status", _SOON), placed("reload", OTHER_CONTEXT)),
    ),
    _beside_a_wait("unload", "who unloads while a load waits wants no server, and no lock is held meanwhile"),
    _beside_a_wait("cancel", "a load that is cancelled ends at once, and starts no server"),
    _reloads(
        name="ignores-sigterm",
        about="a server that does not heed SIGTERM has to be killed",
        scripted=f"{_SERVER}; it ignores SIGTERM; a load with another context",
        machine=functools.partial(_machine, ignores_sigterm=True),
        play=ReloadPlay(_reload),
        checks=(*_WAITED, took("reload", 60.0)),
    ),
    _reloads(
        name="bad-option",
        about="a server that refuses its command line leaves nothing, and the next load works",
        scripted="a load with the cache type 'q9_9', which llama-server does not know; then a good one",
        machine=_machine,
        play=ReloadPlay(functools.partial(_fails, cache_type="q9_9")),
        checks=(nothing_runs("bad load"), says_so("bad load", "good load"), placed("good load")),
    ),
    _reloads(
        name="out-of-memory",
        about="somebody else was faster: the server says so and exits, and the next load works",
        scripted="a neighbour takes 5 GiB while the weights are loaded, so that the cache finds no room; then it goes",
        machine=_machine,
        play=ReloadPlay(_out_of_memory),
        checks=(nothing_runs("bad load"), says_so("bad load", "good load"), placed("good load")),
    ),
    _reloads(
        name="never-back",
        about="memory that never comes back must not keep a load for ever",
        scripted=f"{_SERVER}; nothing of its memory ever comes back; a load with another context",
        machine=functools.partial(_machine, reclaim=Ramp.never()),
        play=ReloadPlay(_never),
        checks=(took("reload", _LONGEST), restarted("load", "reload"), goes_on_or_says_so("reload", "load")),
    ),
    _reloads(
        name="two-loads-at-once",
        about="two users press the button: one server in the end, and no other left behind",
        scripted=f"{_SERVER}; loads of two models at the same time, from two threads",
        machine=_machine,
        play=ReloadPlay(_two_at_once),
        checks=(placed("status"), status_is_true("status")),
    ),
    _reloads(
        name="nothing-left",
        about="a backend that ends takes its server, its threads and its helpers along",
        scripted=f"{_SERVER}; a load, then close(), or unload() where there is none",
        machine=_machine,
        play=ReloadPlay(_closed),
        checks=(nothing_runs("the end"),),
    ),
    _reclaimed(
        "late-start",
        Ramp.linear("400ms", after="800ms"),
        about="memory starts to come back after two readings have already agreed",
        scripted="nothing for 0.8 s, then all within 0.4 s",
    ),
    _reclaimed(
        "plateau",
        Ramp.points([(0, 0), (0.2, 0.4), (1.2, 0.4), (1.5, 1)]),
        about="reclaim rests in the middle",
        scripted="40 % within 0.2 s, nothing more until 1.2 s, the rest by 1.5 s",
    ),
    _reclaimed(
        "step",
        Ramp.step("1s"),
        about="all of it comes back in one step, after a second of nothing",
        scripted="nothing for 1 s, then all at once",
    ),
    _reloads(
        name="unload-then-load-late",
        levels=("verified",),
        about="what one request has killed may begin to come back only in the next one",
        scripted=f"{_SERVER}; unload, and at once a load; nothing comes back for 1 s, then all at once",
        machine=functools.partial(_machine, reclaim=Ramp.step("1s")),
        play=ReloadPlay(_unload_then_load),
        checks=(placed("load after unload"),),
    ),
    _reloads(
        name="after-a-crash",
        levels=("verified",),
        about="a server that has died by itself gives back as slowly as one that was killed",
        scripted=f"{_SERVER}; it crashes 10 s after its start, and at once the same load comes again",
        machine=functools.partial(_machine, crash="10s"),
        play=ReloadPlay(_crash),
        checks=(placed("load after a crash"), restarted("load", "load after a crash")),
    ),
    _reloads(
        name="leaves-a-child",
        levels=("verified",),
        about="a child of the server lives on and keeps its memory: a wait for all of it never ends",
        scripted="a server with 9.5 GiB of a 24 GiB card leaves a child with 4 GiB; a load with another context",
        machine=functools.partial(_machine, weights="8 GiB", leaves_child="4 GiB"),
        play=ReloadPlay(_reload_beside_a_child),
        checks=(*_WAITED, took("reload", _LONGEST)),
        leaves=True,
    ),
)
