"""Contracts as data: pyproject.toml, `vramsettle check`, its formats, pytest's items, and --prove."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract_backend import BACKEND, TOML, UNDER_LOCK

FIRST = '[[tool.vramsettle.contracts]]\nid = "wait-outside-the-lock"'


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "src" / "myapp").mkdir(parents=True)
    (tmp_path / "src" / "myapp" / "__init__.py").write_text("")
    (tmp_path / "src" / "myapp" / "backend.py").write_text(BACKEND)
    (tmp_path / "pyproject.toml").write_text(TOML)
    return tmp_path


def check(app: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pytest_vramsettle.cli import vramsettle; vramsettle()", "check", *arguments]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, cwd=app, env=environment, capture_output=True, text=True, timeout=50, check=False)


def put(app: Path, source: str) -> None:
    (app / "src" / "myapp" / "backend.py").write_text(source)


def test_all_kept_exits_0(app: Path) -> None:
    done = check(app)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("5 of 5 contracts pass\n")


def test_a_violation_exits_1_and_json_says_what(app: Path) -> None:
    put(app, UNDER_LOCK)
    done = check(app, "--format", "json")
    assert done.returncode == 1
    outcomes = {each["id"]: each for each in json.loads(done.stdout)}
    assert outcomes["wait-outside-the-lock"]["verdict"] == "violated"
    assert outcomes["no-flag"]["verdict"] == "kept"
    places = outcomes["wait-outside-the-lock"]["findings"][0]["places"]
    assert [place["line"] for place in places] == [28, 36]


def test_sarif_has_related_locations_and_fingerprints_that_survive_moved_lines(app: Path) -> None:
    put(app, UNDER_LOCK)
    first = json.loads(check(app, "--format", "sarif").stdout)
    put(app, "# moved\n\n\n" + UNDER_LOCK)
    second = json.loads(check(app, "--format", "sarif").stdout)
    one, other = first["runs"][0]["results"][0], second["runs"][0]["results"][0]
    assert (first["version"], one["ruleId"], one["level"]) == ("2.1.0", "wait-outside-the-lock", "error")
    location = one["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "src/myapp/backend.py"
    assert location["region"] == {"startLine": 36, "startColumn": 9, "endLine": 36, "endColumn": 37}
    related = [each["physicalLocation"]["region"]["startLine"] for each in one["relatedLocations"]]
    assert related == [28, 29]
    assert one["partialFingerprints"] == other["partialFingerprints"]
    assert other["locations"][0]["physicalLocation"]["region"]["startLine"] == 39


def test_a_waived_violation_passes_and_is_suppressed(app: Path) -> None:
    put(app, UNDER_LOCK)
    waived = TOML.replace('at = "_wait_for_vram_settle"', 'at = "_wait_for_vram_settle"\nwaive = "moves in May"')
    (app / "pyproject.toml").write_text(waived)
    done = check(app, "--format", "sarif")
    assert done.returncode == 0
    (result,) = json.loads(done.stdout)["runs"][0]["results"]
    assert result["suppressions"] == [{"kind": "external", "justification": "moves in May"}]
    put(app, BACKEND)
    done = check(app)
    assert done.returncode == 1
    assert "the waiver ('moves in May') matches nothing" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('lock = "_lock"\nat', 'lokc = "_lock"\nat'), "must_not_hold takes no key 'lokc'; did you mean 'lock'?"),
        (('rule = "must_not_name"', 'rule = "must_name"'), "'must_name' is not known; did you mean 'must_not_name'?"),
        (('name = "had_live_process"', ""), "number 5 (no-flag): missing required field `name`"),
        (("only_if = true", 'only_if = "yes"'), "number 3 (stamped): Expected `bool`, got `str`, at `only_if`"),
        (('id = "no-flag"', 'id = "stamped"'), "another contract has this id"),
        (('id = "no-flag"', 'id = "no-flag'), "is no TOML"),
        ((":Backend", ":Back"), "no class 'Back' in module 'myapp.backend'; did you mean 'Backend'?"),
        (('within = "_kill_process"', 'within = "_kill"'), "class Backend has no function '_kill'"),
        ((FIRST, f"[tool.vramsettle]\nroot = 1\n{FIRST}"), "[tool.vramsettle] has no key 'root'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_table_is_named(app: Path, change: tuple[str, str], said: str) -> None:
    from pytest_vramsettle.contracts import ContractError
    from pytest_vramsettle.contracts.config import load

    (app / "pyproject.toml").write_text(TOML.replace(*change))
    with pytest.raises(ContractError) as caught:
        [contract.check_static() for contract in load(app / "pyproject.toml").contracts]
    assert said in str(caught.value)


def test_errors_exit_2(app: Path) -> None:
    (app / "pyproject.toml").write_text("[tool.other]\n")
    done = check(app)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no [[tool.vramsettle.contracts]] in it" in done.stderr


def test_what_is_not_in_the_code_names_the_contract_and_its_line(app: Path) -> None:
    (app / "pyproject.toml").write_text(TOML.replace('within = "_kill_process"', 'within = "_kil_process"'))
    for arguments in ((), ("--prove",)):
        done = check(app, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "pyproject.toml, line 16 (stamped): " in done.stderr
        assert "no function '_kil_process'; did you mean '_kill_process'?" in done.stderr


def test_sarif_of_a_vacuous_contract_is_never_suppressed(app: Path) -> None:
    typo = TOML.replace('at = "_wait_for_vram_settle"', 'at = "_wiat_for_vram_settle"\nwaive = "moves"')
    (app / "pyproject.toml").write_text(typo)
    done = check(app, "--format", "sarif")
    assert done.returncode == 1
    results = json.loads(done.stdout)["runs"][0]["results"]
    assert [(each["level"], "suppressions" in each) for each in results] == [("error", False), ("warning", False)]
    assert "matches nothing: the contract is vacuous" in results[0]["message"]["text"]


def test_pytest_collects_contracts_with_readable_ids(pytester: pytest.Pytester) -> None:
    package = pytester.mkpydir("myapp")
    (package / "backend.py").write_text(UNDER_LOCK)
    pytester.mkdir("tests")
    ini = '[tool.pytest.ini_options]\ntestpaths = ["tests"]\n'
    pytester.makepyprojecttoml(ini + TOML)
    (pytester.path / "tests" / "test_it.py").write_text("def test_it(): pass\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", timeout=50)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines_random(
        [
            "pyproject.toml::wait-outside-the-lock FAILED*",
            "pyproject.toml::Backend-must_precede-_wait_for_vram_settle-subprocess.Popen-_process.terminate PASSED*",
            "*violated: myapp.backend:Backend must not hold _lock at _wait_for_vram_settle()",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    chosen = pytester.runpytest_inprocess("-p", "no:cacheprovider", "tests/test_it.py")
    chosen.assert_outcomes(passed=1)
    one = pytester.runpytest_inprocess("-p", "no:cacheprovider", "pyproject.toml::no-flag")
    one.assert_outcomes(passed=1)


def test_a_wrong_table_is_an_error_of_collection(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(TOML.replace('lock = "_lock"\nat', 'lokc = "_lock"\nat'))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "pyproject.toml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*number 1 (wait-outside-the-lock): must_not_hold takes no key 'lokc'*"])


def test_prove_shows_which_edits_each_contract_catches(app: Path) -> None:
    done = check(app, "--prove")
    assert done.returncode == 0, done.stdout
    assert "MISSED" not in done.stdout
    for line in (
        "caught  violated     ",
        "put under self._lock",
        "take _wait_for_vram_settle() away",
        "take _last_kill_monotonic = time.monotonic() away",
        "turn the answer round",
        "assign had_live_process",
    ):
        assert line in done.stdout
    assert "def load_model" not in (app / "src" / "myapp" / "backend.py").read_text().partition("with self._lock")[2]


BEFORE = 'before = "never"\nwithin = "load_model"\n'


def test_prove_reports_a_contract_that_cannot_fail(app: Path) -> None:
    text = TOML.replace('before = "subprocess.Popen"\nwithin = "load_model"\nreset', BEFORE + "reset")
    (app / "pyproject.toml").write_text(text)
    done = check(app, "--prove")
    assert done.returncode == 1
    assert "not tried: it is vacuous as the source stands" in done.stdout
