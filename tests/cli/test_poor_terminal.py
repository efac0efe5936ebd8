"""A terminal whose encoding lacks signs: what we draw with has ASCII stand-ins as wide, texts of users are spelled out."""

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest
import typer
import yaml
from rich.cells import cell_len

import diffusecli
from diffusecli.cli.app import app
from diffusecli.cli.printing import notice
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.markdown import as_markdown
from diffusecli.report.progress import TrainingProgress, live_view
from diffusecli.report.summary import evaluation
from diffusecli.report.tables import answers, distribution_preview, prompts_overview
from diffusecli.system import terminal
from diffusecli.verbs.evaluate import Question, evaluate
from tests.report.test_progress import iterations

POOR = ("ascii", "latin-1", "cp1252", "cp437", "koi8-r")
DRAWN = str.maketrans({**dict.fromkeys("─━╸╺–−▏▎▍", "-"), **dict.fromkeys("▌▋▊▉", "="), "█": "#", "…": "~",
                       "│": "|", "⋮": ":", "✓": "+", "✗": "x", "≈": "~", "○": "o", "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "%"})  # fmt: skip


@pytest.fixture
def written(monkeypatch):
    """What reaches a terminal of some encoding, as the bytes mean there."""

    def run(encoding, *prints):
        monkeypatch.setenv("COLUMNS", "80")
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
        terminal.spell_what_is_lacking()
        terminal.guard()
        for each in prints:
            each()
        return stream.buffer.getvalue().decode(encoding)

    return run


def plain(found=None):
    """Prints everything that is drawn with more than ASCII, of texts that are ASCII."""
    seen = list(iterations(9))
    words = [f"{letter * 30}" for letter in "abc"]
    prompt = Prompt(request="x", targets=tuple(words), weights=(0.31, 0.42, 0.27), alias="p.json")
    renderables = [
        lambda: evaluation(found, verbose=True), lambda: distribution_preview(prompt), lambda: prompts_overview([prompt]),
        lambda: answers(Answers({"a" * 99: 7, "b": 3, "c": 1})), lambda: live_view(seen, 3.0), lambda: live_view(seen[:2], 3.0),
    ]  # fmt: skip
    for each in renderables:
        terminal.console().print(each())


@pytest.fixture
def coin(tmp_path, prompt_file):
    """An evaluation of ASCII texts, one of them too long for its column."""
    (tmp_path / "s.json").write_text(json.dumps({"heads": 613, "tails": 244, "t" * 40: 100, "edge " * 30: 43}))
    asked = prompt_file(targets=["heads", "tails", "t" * 40])
    return evaluate([tmp_path / "s.json"], Question(prompt=asked))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_is_drawn_has_stand_ins_as_wide(written, coin, encoding):
    rich = written("utf-8", lambda: plain(coin))
    poor = written(encoding, lambda: plain(coin))
    assert {"─", "█", "…", "✗", "━", "▁"} <= set(rich)
    assert poor == rich.translate(DRAWN)
    assert poor.isascii()
    assert "\\" not in poor


@pytest.mark.parametrize("encoding", POOR)
def test_signs_that_the_encoding_has_stay_and_nothing_of_ours_is_spelled_out(written, coin, encoding):
    rich, poor = (written(some, lambda: plain(coin)) for some in ("utf-8", encoding))
    assert "\\" not in poor
    assert len(poor) == len(rich)
    for sign, instead in zip(rich, poor, strict=True):
        has = sign.encode(encoding, "ignore").decode(encoding) == sign
        assert instead == (sign if has else sign.translate(DRAWN))


HARD = "─ é–日…"


@pytest.mark.parametrize(
    ("encoding", "spelled"),
    [("ascii", "\\u2500 \\xe9\\u2013\\u65e5\\u2026"), ("latin-1", "\\u2500 é\\u2013\\u65e5\\u2026"), ("utf-8", HARD)],
)
def test_texts_of_users_are_spelled_out_before_they_are_measured(written, tmp_path, prompt_file, encoding, spelled):
    stray = f"{HARD}!"
    (tmp_path / f"s{HARD}.json").write_text(json.dumps({HARD: 5, "heads": 3, stray: 2}))
    asked = prompt_file(f"p{HARD}.json", targets=[HARD, "heads"])
    found = evaluate([tmp_path / f"s{HARD}.json"], Question(prompt=asked))
    seen = written(encoding, lambda: terminal.console().print(evaluation(found, verbose=True)))
    rows = [line for line in seen.splitlines() if re.search(r" [+-](1\.0|0\.5|0\.7)( |$)", line)]
    assert len(rows) == 2
    assert f"  {spelled}" in seen
    assert len({cell_len(line[: line.index(" 50.0 %")]) for line in rows}) == 1
    assert f"'{spelled}!'" in seen
    assert HARD in written("utf-8", lambda: terminal.console().print(answers(Answers({HARD: 1}))))
    assert spelled in written(encoding, lambda: terminal.console().print(answers(Answers({HARD: 1}))))
    markdown = written(encoding, lambda: typer.echo(as_markdown(found)))
    assert f"s{spelled}".replace("\\", "\\\\") in markdown
    assert " TVD / floor " in markdown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_and_yaml_mean_the_same_in_every_encoding(written, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(sys, "argv", ["diffuse", "init-prompt", "--choices", f"{HARD}=1,🙂=2", "--wrap", "%s", "--no-preview"])

    def run():
        with pytest.raises(SystemExit):
            app()

    assert json.loads(written(encoding, run))["targets"] == [HARD, "🙂"]
    from diffusecli.prompts.config import Config, settings_as_yaml

    config = Config.model_validate({"model": "a/b", "output_dir": HARD, "system": f"{HARD}\n🙂"})
    fields = config.model_dump(mode="json")
    plain = settings_as_yaml(fields, ascii_only=True)
    assert yaml.safe_load(plain) == yaml.safe_load(config.to_yaml()) == fields
    assert plain.isascii()


def test_messages_spell_out_texts_of_users_and_not_the_sign_for_what_is_blanked(written, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    seen = written("latin-1", lambda: notice("─é–: hf_abcdefghijkl"), lambda: sys.stderr.write("https://me:x@host–\n"))
    assert seen == "\\u2500é\\u2013: ...\nhttps://...@host\\u2013\n"


def test_help_has_stand_ins(diffuse):
    done = diffuse("evaluate", "--help", PYTHONIOENCODING="ascii")
    assert "PATH..." in done.stdout
    assert "regex:..." in done.stdout
    assert "\\" not in done.stdout


def test_a_training_on_a_poor_terminal_is_drawn_in_ascii(written, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")

    def train():
        with TrainingProgress(terminal.console(stderr=True)) as progress:
            for seen in iterations(12):
                progress(seen)

    seen = written("ascii", train)
    assert "iteration 12/12" in seen
    assert "*+-_" in seen
    assert "\\" not in seen


def test_everything_that_the_program_prints_with_has_a_stand_in():
    """Signs in the sources that are no docstrings; what stands in files and charts, and what is only looked for, is left out."""
    elsewhere = {
        "spreadsheets",
        "curves",
        "views",
        "wording",
        "numbers",
        "html",
        "samples",
        "asked",
        "scales",
        "target_charts",
        "row_charts",
        "prompt_charts",
        "text_widths",
        "svg",
        "pictures",
    }
    elsewhere |= {
        "column_names",
        "file_names",
        "numerals",
        "table_files",
        "tokens",
        "weighing",
        "text_changes",
        "paraphrases",
        "replies",
        "distinctness",
        "widths",
        "first_tokens",
        "matching",
        "stated_options",
    }  # read
    elsewhere |= {
        "facts",
        "families_of_games",
        "families_of_numbers",
        "listings",
    }  # requests, which are JSON in files and on stdout
    folder = Path(diffusecli.__file__).parent
    found = {}
    for path in folder.rglob("*.py"):
        if path.parent == folder / "cli" or path.stem not in elsewhere:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare)
            found[str(path.relative_to(folder))] = {
                sign
                for text in texts
                if isinstance(text, str)
                for sign in text
                if sign > "\x7f" and not "\ud800" <= sign <= "\udfff"
            }
    lacking = {name: signs - set(terminal._IN_PROSE) for name, signs in found.items()}
    assert {name: signs for name, signs in lacking.items() if signs} == {}
    assert "█" in found["report/parts.py"]
    assert "…" in found["cli/init_prompt.py"]


def test_stand_ins_are_ascii_and_one_for_one_where_columns_are_drawn():
    assert all(len(sign) == len(instead) == 1 and instead.isascii() for sign, instead in terminal._REPLACEMENTS.items())
    assert all(instead.isascii() for instead in terminal._IN_PROSE.values())
