"""Plugins are found without being imported, and a broken one hurts nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cryoplug import __version__, extensions
from cryoplug.errors import UsageError


def fake_distribution(
    site: Path, name: str, entry_points: str, *, metadata: str | None = None, needs: str = "numpy"
) -> None:
    folder = site / f"{name.replace('-', '_')}-1.2.dist-info"
    folder.mkdir(parents=True)
    (folder / "entry_points.txt").write_text(entry_points)
    (folder / "METADATA").write_text(
        metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\nRequires-Dist: {needs}\n"
    )


def run_python(site: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join([str(site), str(root)])
    env = {key: value for key, value in os.environ.items() if key != extensions.OFF_VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(extensions.OFF_VARIABLE, raising=False)
    monkeypatch.setattr(extensions, "_loaded", {})
    monkeypatch.setattr(extensions, "_failures", {})
    extensions._scan.cache_clear()
    return folder


def write_module(site: Path, name: str, text: str) -> None:
    (site / f"{name}.py").write_text(text)


def test_discovery_imports_nothing(site: Path) -> None:
    write_module(site, "plug_lazy", "raise RuntimeError('imported')\n")
    fake_distribution(site, "plug-lazy", "[cryoplug.models]\nlazy = plug_lazy:SPEC\n")
    (found,) = [item for item in extensions.discover("models") if item.distribution == "plug-lazy"]
    assert (found.name, found.version, found.state) == ("lazy", "1.2", "unloaded")
    assert "plug_lazy" not in sys.modules


def test_working_plugin_is_loaded_once_and_reported_ok(site: Path) -> None:
    write_module(site, "plug_good", "VALUE = object()\n")
    fake_distribution(site, "plug-good", "[cryoplug.formats]\ngood = plug_good:VALUE\n")
    first, second = extensions.load_all("formats"), extensions.load_all("formats")
    assert first["good"] is second["good"]
    assert [item.state for item in extensions.discover("formats") if item.name == "good"] == ["ok"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no luck')\n", "RuntimeError: no luck"),
        ("import sys\nsys.exit(7)\n", "SystemExit: 7"),
        ("import a_library_that_is_not_there\n", "a_library_that_is_not_there"),
        ("def broken(:\n", "SyntaxError"),
        ("OTHER = 1\n", "AttributeError"),
        ("assert False\n", "AssertionError"),
    ],
)
def test_broken_plugin_is_recorded_with_its_reason_and_hurts_nothing_else(
    site: Path, source: str, reason: str, request: pytest.FixtureRequest
) -> None:
    module = f"plug_bad_{abs(hash(request.node.name))}"
    write_module(site, module, source)
    write_module(site, "plug_fine", "VALUE = 5\n")
    fake_distribution(site, "plug-bad", f"[cryoplug.models]\nbad = {module}:VALUE\n")
    fake_distribution(site, "plug-fine", "[cryoplug.models]\nfine = plug_fine:VALUE\n")
    assert extensions.load_all("models")["fine"] == 5
    (bad,) = [item for item in extensions.broken() if item.name == "bad"]
    assert reason in bad.error
    assert bad.distribution == "plug-bad"
    with pytest.raises(UsageError, match=r"plug-bad 1\.2 is broken"):
        extensions.load(bad)


def test_object_of_the_wrong_kind_is_broken(site: Path) -> None:
    write_module(site, "plug_kind", "VALUE = 'text'\n")
    fake_distribution(site, "plug-kind", "[cryoplug.models]\nkind = plug_kind:VALUE\n")
    assert "kind" not in extensions.load_all("models", expected=int)
    assert "leads to a str; a int is needed" in extensions.broken()[0].error


@pytest.mark.parametrize("line", ["no equals sign", "x = ", "x = a b c"])
def test_malformed_entry_points_do_not_stop_discovery(site: Path, line: str) -> None:
    write_module(site, "plug_still", "VALUE = 1\n")
    fake_distribution(site, "plug-malformed", f"[cryoplug.models]\n{line}\n")
    fake_distribution(site, "plug-still", "[cryoplug.models]\nstill = plug_still:VALUE\n")
    assert extensions.load_all("models") == {"still": 1}
    assert [item.distribution for item in extensions.broken()] == ["plug-malformed"]


def test_distribution_without_metadata_is_named_after_its_folder(site: Path) -> None:
    write_module(site, "plug_anonymous", "VALUE = 1\n")
    fake_distribution(site, "plug-anonymous", "[cryoplug.models]\nanon = plug_anonymous:VALUE\n", metadata="nothing\n")
    (site / "plug_anonymous-1.2.dist-info" / "METADATA").unlink()
    assert extensions.load_all("models")["anon"] == 1
    assert extensions.discover("models")[0].distribution.startswith("plug_anonymous")


def test_name_offered_twice_goes_to_the_first_and_the_other_is_broken(site: Path) -> None:
    write_module(site, "plug_twice", "A = 'a'\nB = 'b'\n")
    fake_distribution(site, "plug-b", "[cryoplug.models]\ntwice = plug_twice:B\n")
    fake_distribution(site, "plug-a", "[cryoplug.models]\ntwice = plug_twice:A\n")
    assert extensions.load_all("models") == {"twice": "a"}
    (loser,) = extensions.broken()
    assert loser.distribution == "plug-b"
    assert "taken by plug-a" in loser.error


def test_variable_switches_plugins_off(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_distribution(site, "plug-off", "[cryoplug.models]\noff = plug_off:VALUE\n")
    assert extensions.discover("models")
    monkeypatch.setenv(extensions.OFF_VARIABLE, "1")
    assert extensions.discover("models") == []
    assert extensions.load_all("models") == {}
    monkeypatch.setenv(extensions.OFF_VARIABLE, "0")
    assert extensions.discover("models")


def test_unknown_group_is_refused() -> None:
    with pytest.raises(UsageError, match="groups: commands, models, formats"):
        extensions.discover("readers")


def test_command_line_lists_a_broken_plugin_and_goes_on(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    write_module(site, "plug_cli", "import click\n\n@click.command()\ndef hello():\n    click.echo('hello')\n")
    write_module(site, "plug_dead", "raise RuntimeError('dead\\nsecond line')\n")
    fake_distribution(site, "plug-cli", "[cryoplug.commands]\nhello = plug_cli:hello\ntrain = plug_cli:hello\n")
    dead_entries = "[cryoplug.commands]\ndead = plug_dead:x\n[cryoplug.formats]\nd = plug_dead:x\n"
    fake_distribution(site, "plug-dead", dead_entries)
    fake_distribution(site, "plug-malformed", "[cryoplug.models]\nnothing\n")
    run = "from cryoplug.cli.main import main; main({})"

    listed = run_python(site, run.format(["plugins", "list", "--json"]))
    assert listed.returncode == 0, listed.stderr
    records = {(item["group"], item["name"]): item for item in map(json.loads, listed.stdout.splitlines())}
    assert records["commands", "hello"]["state"] == "ok"
    assert records["commands", "dead"]["state"] == "broken"
    assert "RuntimeError: dead" in records["commands", "dead"]["error"]
    assert "cryoplug's own" in records["commands", "train"]["error"]
    assert records["formats", "d"]["state"] == "broken"
    assert any(item["distribution"] == "plug-malformed" for item in records.values())

    text = run_python(site, run.format(["plugins", "list"]))
    assert "RuntimeError: dead" in text.stdout
    assert "second line" not in text.stdout
    assert run_python(site, run.format(["hello"])).stdout == "hello\n"
    assert run_python(site, run.format(["--help"])).returncode == 0
    dead = run_python(site, run.format(["dead"]))
    assert dead.returncode == 2
    assert "broken" in dead.stderr
    assert "Traceback" not in dead.stderr

    words = {"_CRYOPLUG_COMPLETE": "bash_complete", "COMP_WORDS": "cryoplug ", "COMP_CWORD": "1"}
    completed = run_python(site, run.format([]), **words)
    assert {"plain,hello", "plain,train"} <= set(completed.stdout.split()), completed.stderr
    assert "plain,dead" not in completed.stdout

    off = run_python(site, run.format(["plugins", "list", "--json"]), CRYOPLUG_NO_PLUGINS="1")
    assert (off.returncode, off.stdout) == (0, "")


def test_function_that_returns_the_object_is_called_once_and_guarded(site: Path) -> None:
    write_module(site, "plug_call", "def make():\n    return 7\n\ndef fail():\n    raise KeyError('config')\n")
    fake_distribution(site, "plug-call", "[cryoplug.models]\nmade = plug_call:make\nfails = plug_call:fail\n")
    assert extensions.load_all("models", expected=int) == {"made": 7}
    (bad,) = extensions.broken()
    assert (bad.name, "calling it failed: KeyError" in bad.error) == ("fails", True)


@pytest.mark.parametrize(
    ("needs", "works"),
    [
        ("cryoplug<0.0.1", False),
        ("CryoPlug >= 99 ; python_version > '3'", False),
        ("cryoplug>=99; python_version < '3'", True),
        (f"cryoplug>=0.0.1,<={__version__}", True),
        ("cryoplug-other>=99", True),
        ("cryoplug[dm]", True),
        ("not a requirement !", True),
    ],
)
def test_plugin_for_another_version_of_cryoplug_is_broken_and_not_imported(
    site: Path, needs: str, works: bool, request: pytest.FixtureRequest
) -> None:
    module = f"plug_old_{abs(hash(request.node.name))}"
    write_module(site, module, "VALUE = 1\n")
    fake_distribution(site, "plug-old", f"[cryoplug.models]\nold = {module}:VALUE\n", needs=needs)
    assert extensions.load_all("models") == ({"old": 1} if works else {})
    assert (module in sys.modules) == works
    if not works:
        (bad,) = extensions.broken()
        assert bad.error.startswith("it is for ") and bad.error.endswith(f", and this is {__version__}")


def test_an_object_with_an_id_is_offered_under_that_name_alone(site: Path) -> None:
    write_module(site, "plug_id", "import types\nVALUE = types.SimpleNamespace(id='one')\n")
    fake_distribution(site, "plug-id", "[cryoplug.models]\none = plug_id:VALUE\ntwo = plug_id:VALUE\n")
    assert list(extensions.load_all("models", expected=types.SimpleNamespace)) == ["one"]
    assert "its id is 'one', but its entry point is called 'two'" in extensions.broken()[0].error


def test_what_a_plugin_prints_when_it_is_imported_does_not_get_into_the_results(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_module(site, "plug_loud", "print('imported')\n\ndef make():\n    print('made')\n    return 7\n")
    fake_distribution(site, "plug-loud", "[cryoplug.models]\nloud = plug_loud:make\n")
    assert extensions.load_all("models", expected=int) == {"loud": 7}
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "imported\nmade\n")


def test_a_broken_plugin_does_not_keep_its_name_from_one_that_works(site: Path) -> None:
    write_module(site, "plug_dead_first", "raise RuntimeError('dead')\n")
    write_module(site, "plug_alive", "VALUE = 1\nOTHER = 2\n")
    fake_distribution(site, "plug-a", "[cryoplug.models]\nshared = plug_dead_first:x\n")
    fake_distribution(site, "plug-b", "[cryoplug.models]\nshared = plug_alive:VALUE\n")
    fake_distribution(site, "plug-c", "[cryoplug.models]\nshared = plug_alive:OTHER\nalone = plug_dead_first:x\n")
    assert extensions.load_named("models", "shared") == 1 == extensions.load_all("models")["shared"]
    assert extensions.load_named("models", "nowhere") is None
    with pytest.raises(UsageError, match=r"'alone' of plugin plug-c 1\.2 is broken: .*dead"):
        extensions.load_named("models", "alone")
