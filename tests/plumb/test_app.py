from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from features.errors import DeclarationError, PermanentError, StoreUnavailable
from plumb import app
from plumb.settings import Settings

PLUMB = Path(sys.executable).parent / "plumb"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as an operator does."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PLUMB_")}
    return subprocess.run(
        [PLUMB, *arguments], env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def probe(monkeypatch):
    """A root of the same shape with one command that shows what it was given, and one that fails as told."""
    root = typer.Typer(pretty_exceptions_enable=False)
    root.callback()(app.configure)

    @root.command("show")
    def show(ctx: typer.Context) -> None:
        assert isinstance(ctx.obj, Settings)
        typer.echo(ctx.obj.workspace_root)

    @root.command("fail")
    def fail(kind: str) -> None:
        raise {
            "permanent": DeclarationError("unknown view:\n 'chrun'"),
            "temporary": StoreUnavailable("store is busy"),
            "bug": KeyError("surprise"),
        }[kind]

    monkeypatch.setattr(app, "root", root)
    return root


def call(monkeypatch, capsys, *arguments):
    """Run main() in this process; its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["plumb", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    printed = capsys.readouterr()
    return stopped.value.code, printed.out, printed.err


def test_the_version_is_printed_without_loading_a_command():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "plumb 0.1.0\n", "")


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    assert "--workspace" in done.stdout
    for command in ("events", "features", "pipelines", "runs", "models", "demo", "serve", "score"):
        assert f" {command} " in done.stdout


def test_no_sub_command_hides_the_global_workspace():
    def leaves(command, path):
        for name, child in getattr(command, "commands", {}).items():
            yield from leaves(child, f"{path} {name}")
        if not hasattr(command, "commands"):
            yield path, command

    owners = [
        path
        for path, command in leaves(typer.main.get_command(app.root), "plumb")
        if any("--workspace" in parameter.opts for parameter in command.params)
    ]
    assert owners == []


@pytest.mark.parametrize(
    "arguments",
    [["--workspace", "w", "show"], ["show", "--workspace", "w"], ["show", "--workspace=w"]],
    ids=["before", "after", "equals"],
)
def test_the_workspace_may_stand_anywhere(monkeypatch, capsys, probe, arguments):
    assert call(monkeypatch, capsys, *arguments) == (0, "w\n", "")


def test_words_after_a_double_dash_are_left_alone():
    given = ["score", "--", "--workspace", "w"]
    assert app.hoist_global_options(given) == given


def test_an_option_wins_over_the_environment_and_both_over_the_default(monkeypatch, capsys, probe):
    monkeypatch.delenv("PLUMB_WORKSPACE", raising=False)
    assert call(monkeypatch, capsys, "show")[1] == "workspace\n"
    monkeypatch.setenv("PLUMB_WORKSPACE", "from-env")
    assert call(monkeypatch, capsys, "show")[1] == "from-env\n"
    assert call(monkeypatch, capsys, "show", "--workspace", "given")[1] == "given\n"


def test_an_error_of_ours_is_one_line_and_its_exit_code_says_whether_to_try_again(monkeypatch, capsys, probe):
    assert call(monkeypatch, capsys, "fail", "permanent") == (2, "", "plumb: unknown view: 'chrun'\n")
    assert call(monkeypatch, capsys, "fail", "temporary") == (75, "", "plumb: store is busy\n")


def test_a_bug_keeps_its_traceback(monkeypatch, probe):
    monkeypatch.setattr(sys, "argv", ["plumb", "fail", "bug"])
    with pytest.raises(KeyError, match="surprise"):
        app.main()


def test_a_misspelt_setting_stops_the_command_with_one_line():
    done = run("runs", "list", PLUMB_WORKSPCE="x")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("plumb: unknown setting: environment variable PLUMB_WORKSPCE; expected PLUMB_WORKSPACE or ")


def test_the_runner_raises_what_the_process_prints(probe):
    result = CliRunner().invoke(probe, ["fail", "permanent"])
    assert isinstance(result.exception, PermanentError)
