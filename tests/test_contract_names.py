"""`must_not_name`: where the name is looked for, and what counts as naming it."""

from __future__ import annotations

import pytest

from pytest_vramsettle.contracts import Outcome, Verdict, lock_contract

SOURCES = {
    "app/backend.py": """\
from app.base import Base
from app.helpers import Helper


class Backend(Base):
    def load(self, model):
        return Helper()
""",
    "app/base.py": "class Base:\n    class Inner:\n        pass\n\n\nclass Beside:\n    pass\n",
    "app/helpers.py": "class Helper:\n    pass\n",
}


def named(spec: str = "app.backend:Backend", *, within: str | None = None, **added: str) -> Outcome:
    sources = {key: text + added.get(key.removeprefix("app/").removesuffix(".py"), "") for key, text in SOURCES.items()}
    return lock_contract(spec, sources=sources).must_not_name("had", within=within).check_static()


@pytest.mark.parametrize(
    "added",
    [
        "\nhad = 1\n",
        "\ndef free(had):\n    pass\n",
        "\nclass Other:\n    had = 1\n",
        "\nclass Other:\n    def __init__(self, had):\n        pass\n",
        "\nclass Other:\n    __slots__ = ('had', 'other')\n",
        "\nclass Other:\n    class Inner:\n        had = 1\n",
        "\nfor each in ():\n    def free():\n        return each.had\n",
    ],
)
def test_all_of_the_module_counts(added: str) -> None:
    assert named(backend=added).verdict is Verdict.VIOLATED
    assert named("app.backend", backend=added).verdict is Verdict.VIOLATED
    assert named(backend=added, within="load").verdict is Verdict.KEPT


@pytest.mark.parametrize(
    ("added", "verdict"),
    [
        ({"base": "\nhad = 1\n"}, Verdict.VIOLATED),
        ({"base": "\nBase.had = 1\n"}, Verdict.VIOLATED),
        ({"base": "\nclass Far(Base):\n    had = 1\n"}, Verdict.KEPT),
        ({"helpers": "    had = 1\n"}, Verdict.KEPT),
        ({"helpers": "\nhad = 1\n"}, Verdict.KEPT),
        ({"backend": "        return self.had\n"}, Verdict.VIOLATED),
    ],
)
def test_of_other_modules_the_bases_count(added: dict[str, str], verdict: Verdict) -> None:
    assert named(**added).verdict is verdict


def test_a_class_in_a_base_is_of_that_base() -> None:
    sources = {**SOURCES, "app/base.py": SOURCES["app/base.py"].replace("pass", "had = 1", 1)}
    target = lock_contract("app.backend:Backend", sources=sources)
    assert target.must_not_name("had").check_static().verdict is Verdict.VIOLATED


def test_of_a_module_the_bases_are_others() -> None:
    assert named("app.backend", base="\nhad = 1\n").verdict is Verdict.KEPT
    assert named("app.base", base="\nclass Far(Base):\n    had = 1\n").verdict is Verdict.VIOLATED


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("'{0.had}'.format(model)", Verdict.VIOLATED),
        ("'{model.other.had!r:>10}'.format(model=model)", Verdict.VIOLATED),
        ("'{had}'.format(**vars(self))", Verdict.VIOLATED),
        ("'{had}'.format_map(vars(self))", Verdict.VIOLATED),
        ("'%(had)s' % vars(self)", Verdict.VIOLATED),
        ("TEXT.format(model), '{0.had}'", Verdict.CANNOT_TELL),
        ("enum.Enum('E', 'had other')", Verdict.VIOLATED),
        ("enum.IntFlag('E', ['had'])", Verdict.CANNOT_TELL),
        ("E('had')", Verdict.CANNOT_TELL),
        ("'{{{0.had}}}'.format(model)", Verdict.VIOLATED),
        ("Flag(model, other)", Verdict.KEPT),
        ("'{0.hadron} had {other}'.format(model)", Verdict.KEPT),
        ("'{{0.had}}'.format(model)", Verdict.KEPT),
        ("'the model had {}'.format(model)", Verdict.KEPT),
        ("'it had, 3%' % model", Verdict.KEPT),
    ],
)
def test_texts_that_become_names(code: str, verdict: Verdict) -> None:
    assert named(backend=f"\n    def tell(self, model, other):\n        return {code}\n").verdict is verdict
