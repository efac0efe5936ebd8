"""Nothing that a stranger writes steers the terminal: hostile texts in every place, every command's output looked at."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from diffusecli.cli.printing import notice
from diffusecli.files.writing import write_json
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import read_config
from diffusecli.report.parts import new_table
from diffusecli.runs.run_dir import RunDir
from diffusecli.system import terminal
from diffusecli.system.errors import printable
from diffusecli.system.terminal import Spelled, discreet, in_lines, json_text

HOSTILE = "\x1b]0;pwned\x07\x1b[31mred\x9b32mgreen\u202edrawkcab\u2066\r\b\x7f[bold]b[/x][link=http://e]:smile:\x85\u2028\tend"
STEERS = re.compile(r"[^\n -~\u00a1-\U0010ffff]|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What may not come out: C0 but the line end, DEL, C1, and what changes the direction of texts or is not seen."""
OF_RICH = re.compile(r"\x1b\[(?:[\d;]*m|\?25[lh]|\d*[AK]|2K)|\r(?=\x1b\[2K)")


def file_name(text):
    """As much of it as a file may be called."""
    return text.replace("/", "|")


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("h")


@pytest.fixture(scope="module")
def hostile(module_folder):
    """A folder in which everything has a hostile name or content."""
    name = file_name(HOSTILE)
    prompt = {"request": HOSTILE, "response": [""], "targets": [f"{HOSTILE}1", f"{HOSTILE}2", "\x1b[2J"], "system": HOSTILE}
    (module_folder / f"{name}.json").write_text(json.dumps({**prompt, "weights": [1, 2, 2]}))
    (module_folder / f"bad{name}.json").write_text(json.dumps({HOSTILE: 1, "request": HOSTILE, "targets": [HOSTILE, HOSTILE, " "]}))
    (module_folder / f"{name}.yaml").write_text(
        json.dumps(
            {"model": f"o/{HOSTILE}", "output_dir": HOSTILE, "train_prompts": [HOSTILE], HOSTILE: HOSTILE, "lora": {HOSTILE: 1}}
        )
    )
    (module_folder / f"torn{name}.json").write_text(f'{{"{HOSTILE}": ')
    (module_folder / "template.yaml").write_text(json.dumps({"model": "a/b", "output_dir": "o", "chat_template": "t.jinja"}))
    (module_folder / "t.jinja").write_text(f"{{% if {HOSTILE} %}}\n{{% {HOSTILE}")
    (module_folder / "t.csv").write_text(
        f'group,"{HOSTILE}"\n' + "".join(f'"{HOSTILE}","{HOSTILE}{i}"\n' for i in range(3)), newline=""
    )
    run = module_folder / "runs" / name
    for place in (run, run.with_name(f"b{name}")):
        place.mkdir(parents=True)
        aliases = [f"{name}/{name}", f"z{name}/{name}"]
        write_json(
            place / "prompts.json", {alias: {**prompt, "alias": alias} for alias in aliases} | {"o": {**prompt, "targets": []}}
        )
        answers = {f"{HOSTILE}1": 4, f"{HOSTILE}2": 5, f"{HOSTILE}stray": 3, "\x1b[2J\x00": 60}
        for mode in ("untuned", "lora"):
            write_json(place / f"gen.{mode}.json", dict.fromkeys((*aliases, "o"), answers))
            sampled_with = {"temperature": 0.5, "stop": [HOSTILE]}
            write_json(
                place / f"gen.{mode}.meta.json", {"mode": mode, "model": HOSTILE, "settings": sampled_with, "engine": HOSTILE}
            )
        write_json(
            place / "run.json", {"exact_kl": dict.fromkeys(aliases, 0.1), "retention_kl": 0.1, "model": HOSTILE, HOSTILE: HOSTILE}
        )
        (place / "config.yaml").write_text(json.dumps({"model": f"o/{HOSTILE}", "output_dir": HOSTILE, "test_prompts": [HOSTILE]}))
    return module_folder


@pytest.fixture
def outputs(in_process):
    """All that a command prints."""

    def run(*words, **environment):
        done = in_process(*words, cwd=Path.cwd(), **environment)
        return done.stdout + done.stderr

    return run


NAME = file_name(HOSTILE)
COMMANDS = {
    "init-prompt": ["init-prompt", "--choices", "a\x1b[31m=1,b\u202e\x9b=2", "--request", HOSTILE, "--system", HOSTILE],
    "init-prompt from a table": ["init-prompt", "--from", "t.csv", "--column", HOSTILE],
    "init-prompt by group": [
        "init-prompt",
        "--from",
        "t.csv",
        "--column",
        HOSTILE,
        "--group-by",
        "group",
        "-o",
        "groups",
        "--force",
    ],
    "init-prompt, a column": ["init-prompt", "--from", "t.csv", "--column", f"x{HOSTILE}"],
    "init-prompt, a group": ["init-prompt", "--from", "t.csv", "--column", HOSTILE, "--group-by", HOSTILE + "x", "-o", "g"],
    "init-prompt, a call": ["init-prompt", "--scipy", HOSTILE],
    "validate": ["validate", "."],
    "validate as JSON": ["validate", ".", "--json"],
    "validate one": ["validate", f"{NAME}.json"],
    "validate, a path": ["validate", f"no{HOSTILE}"],
    "train": ["train", f"{NAME}.yaml"],
    "train, an override": ["train", f"{NAME}.yaml", "--set", f"{HOSTILE}={HOSTILE}"],
    "sample": ["sample", f"runs/{NAME}"],
    "sample, a mode": ["sample", "--mode", HOSTILE],
    "export": ["export", f"runs/{NAME}", "-o", HOSTILE],
    "evaluate": ["evaluate", "runs"],
    "evaluate as JSON": ["evaluate", "runs", "--json"],
    "evaluate as CSV": ["evaluate", "runs", "--csv"],
    "evaluate as Markdown": ["evaluate", "runs", "--markdown"],
    "evaluate, a limit": ["evaluate", "runs", "--min-n", "1000000"],
    "evaluate, a rule": ["evaluate", "runs", "--match", f"regex:{HOSTILE[:20]}("],
    "evaluate, only": ["evaluate", "runs", "--only", f"no{HOSTILE}"],
    "evaluate answers": ["evaluate", "t.csv", "--prompt", f"{NAME}.json", "--column", HOSTILE],
    "evaluate, a column": ["evaluate", "t.csv", "--prompt", f"{NAME}.json", "--column", f"x{HOSTILE}"],
    "evaluate, a stray argument": ["evaluate", f"x{HOSTILE}"],
    "an option": ["evaluate", f"--{HOSTILE}"],
    "a choice": ["evaluate", "runs", "--sort", HOSTILE],
    "a template": ["validate", "template.yaml"],
    "a command": [HOSTILE],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_no_command_prints_what_steers(hostile, monkeypatch, outputs, case):
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("COLUMNS", "300")
    words = [word.replace("\x00", "") for word in COMMANDS[case]]
    printed = outputs(*words)
    assert printed
    assert "Traceback" not in printed
    assert "\\x" in printed or "\\u" in printed
    assert [hex(ord(sign)) for sign in STEERS.findall(printed)] == []
    if sys.stdout is not None and case in (
        "evaluate",
        "init-prompt",
    ):  # a terminal gets rich's own codes and no others
        coloured = outputs(*words, FORCE_COLOR="1", TERM="xterm-256color")
        assert "\x1b[1m" in coloured
        assert [hex(ord(sign)) for sign in STEERS.findall(OF_RICH.sub("", coloured))] == []
        assert "[31m" in OF_RICH.sub("", coloured)


def test_json_on_stdout_says_the_same_as_without_the_net(hostile, in_process):
    done = in_process("evaluate", "runs", "--json", cwd=hostile)
    assert {row["request"] for row in json.loads(done.stdout)["rows"]} == {HOSTILE}
    done = in_process("init-prompt", "--choices", "a=1,b=2", "--request", HOSTILE)
    assert json.loads(done.stdout)["request"].startswith(HOSTILE)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_with_escapes_is_equal(text):
    for ascii_only in (True, False):
        shown = json_text(json.dumps({text: [text]}, ensure_ascii=ascii_only, indent=1))
        assert json.loads(shown) == {text: [text]}
        assert not STEERS.findall(shown)


@given(st.text())
def test_printable_text_stays_as_it_is_and_lines_stay_lines(text):
    shown = printable(text)
    assert shown.count("\n") == text.count("\n")
    assert shown == "".join(c if c == "\n" or c.isprintable() else printable(c) for c in text)
    assert printable(shown) == shown


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_config_that_is_printed_is_read_as_the_same(tmp_path_factory, text):
    config = Config.model_validate({"model": "a/b", "output_dir": "o", "system": text})
    path = tmp_path_factory.getbasetemp() / "c.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert read_config(path).system == text
    assert printable(config.to_yaml()) == config.to_yaml()


def test_the_net_lies_under_whatever_is_printed(secrets, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    terminal.guard()
    terminal.guard()
    print(HOSTILE)  # noqa: T201
    sys.stderr.writelines([HOSTILE, "\n"])
    sys.excepthook(ValueError, ValueError(f"{HOSTILE} {SECRETS['http_proxy']} {SECRETS['HF_TOKEN']}"), None)
    for stream in (out, err):
        written = stream.buffer.getvalue().decode()
        assert "\\x1b[31mred\\x9b32m" in written
        assert not STEERS.findall(written)
    assert "ValueError" in written
    assert not [word for word in WORDS if word in written]
    assert not hasattr(sys.stdout, "buffer")
    assert not sys.stdout.isatty()
    with pytest.raises(TypeError):
        sys.stdout.write(b"\x1b")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_colours_and_live_displays_of_rich_work_on_a_terminal_and_texts_in_them_do_not(secrets, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", Spelled(stream))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = terminal.console(stderr=True)
    assert isinstance(made, Console)
    with Live(console=made, auto_refresh=False) as live:
        live.update(Text(HOSTILE, style="bold red"), refresh=True)
        live.update(Text(HOSTILE, style="link http://e.example"), refresh=True)
        print(HOSTILE, file=sys.stderr)  # noqa: T201
        made.print(HOSTILE)
        notice(f"{HOSTILE} {SECRETS['http_proxy']}")  # past the net: rich takes it while a display is up
    shown = stream.getvalue()
    assert "http://…@127.0.0.1:9" in shown
    assert "proxy-password" not in shown
    assert "\x1b[1;31m" in shown
    assert "\x1b[2K" in shown
    assert "[bold]b[/x]" in shown
    assert ":smile:" in shown
    assert not STEERS.findall(OF_RICH.sub("", shown))


def test_what_a_server_says_steers_nothing(tmp_path, monkeypatch, outputs):
    pytest.importorskip("openai")
    from tests.sampling.test_server_engine import Server

    class Hostile(Server):
        """Its errors are hostile too."""

        def send(self, handler, status, content, headers=(), kind="application/json"):
            Server.send(handler, status, content if status == 200 else {"error": {"message": HOSTILE}}, headers, kind)

    monkeypatch.chdir(tmp_path)
    for faults in ([], [401]):
        with Hostile({HOSTILE: 0.5, f"{HOSTILE}2": 0.5}, faults=faults) as server:
            asked = [
                "sample",
                "--engine",
                "openai",
                "--base-url",
                server.url,
                "--model",
                f"m{HOSTILE}",
                "--request",
                f"x{HOSTILE}",
                "-n",
                "3",
            ]
            printed = outputs(*asked, "-o", f"o{NAME}.json")
        assert "\\x9b32m" in printed
        assert ("3 samples" in printed) is (not faults)
        assert [hex(ord(sign)) for sign in STEERS.findall(printed)] == []


def test_what_a_model_file_says_steers_nothing(tmp_path, monkeypatch, prompt_file, outputs):
    from tests.models.test_ggufs import MERGES, write_gguf
    from tests.tiny import tiny_llama

    monkeypatch.chdir(tmp_path)
    prompt_file("p.json")
    model = write_gguf(tmp_path / f"m{NAME}.gguf", tiny_llama(vocabulary=259 + len(MERGES)), HOSTILE.replace("\x00", ""))
    (tmp_path / "t.jinja").write_text(f"{{{{ raise_exception({HOSTILE!r}) }}}}")
    for words, told in (
        (["--top", "0"], f"unknown pre-tokenizer ({printable(HOSTILE)})"),
        (["--chat-template", "t.jinja"], "refuses this conversation"),
    ):
        printed = outputs("validate", "p.json", "--model", model, *words)
        assert told in printed
        assert "\\x1b[31mred\\x9b32m" in printed
        assert [hex(ord(sign)) for sign in STEERS.findall(printed)] == []


SECRETS = {
    "OPENAI_API_KEY": "sk-live-0123456789", "HF_TOKEN": "hf_abcdefghijkl", "WANDB_API_KEY": "wandb0123456789",
    "PIP_INDEX_URL": "https://me:pip-password@index.invalid/simple", "http_proxy": "http://me:proxy-password@127.0.0.1:9",
    "https_proxy": "http://me:proxy-password@127.0.0.1:9",
}  # fmt: skip
WORDS = ["sk-live-0123456789", "hf_abcdefghijkl", "wandb0123456789", "pip-password", "proxy-password"]


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("word", WORDS)
def test_secrets_of_the_environment_are_blanked(secrets, word):
    assert word not in discreet(f"before {word} after https://me:{word}@host/ and https://{word}@host")
    assert discreet("before and after") == "before and after"


def test_stand_ins_for_keys_are_words_like_any_other(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert discreet("none of these") == "none of these"
    assert discreet("see https://example.org/@me and a@b") == "see https://example.org/@me and a@b"


def test_no_output_and_no_file_holds_a_secret(secrets, tmp_path, tiny_model_folder, prompt_file, monkeypatch, outputs):
    pytest.importorskip("openai")
    from tests.sampling.test_server_engine import Server

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffusecli.sampling.connection._FIRST_PAUSE", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    prompt_file("p.json")
    config = {"model": str(tiny_model_folder), "train_prompts": ["p.json"], "test_prompts": ["p.json"], "alg_config": {"n_iters": 1},
              "output_dir": "results/r", "device": "cpu", "generate": False}  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    printed = []
    few = ("-n", "4", "--max-new-tokens", "2")

    class Echo(Server):
        """Gives back what it was sent, as a server that debugs might."""

        def send(self, handler, status, content, headers=(), kind="application/json"):
            said = f"your {handler.headers['Authorization']} {SECRETS['http_proxy']}"
            Server.send(handler, status, content if status == 200 else {"error": {"message": said}}, headers, kind)

    for fault in (None, 401, 500, 400):
        with Echo(faults=[] if fault is None else [fault] * 40) as server:
            printed.append(outputs("sample", "c.yaml", "--mode", "untuned", "--engine", "openai", "--base-url", server.url, "--tries", "2",
                                   "-o", f"served{fault}.json", *few))  # fmt: skip
            assert fault is None or "your Bearer …" in printed[-1]
    monkeypatch.delenv("NO_PROXY")
    more = (["train", "c.yaml"], ["train", "c.yaml"], ["sample", "results/r", *few], ["evaluate", "results/r", "--markdown"],
            ["export", "results/r", "-o", "merged"],
            ["sample", "--model", "https://me:pip-password@host/x", "--request", "x"], ["train", "https://me:pip-password@host/x.yaml"],
            ["sample", "c.yaml", "--engine", "openai", "--base-url", "http://server.invalid/v1", "--tries", "1", "--mode", "untuned", *few],
            ["sample", "c.yaml", "--engine", "openai", "--base-url", "http://me:pip-password@server.invalid/v1"],
            ["validate", "p.json", "--model", "o/gated"])  # fmt: skip
    printed += [outputs(*words) for words in more]
    found = {word for word in WORDS for text in printed if word in text}
    assert found == set()
    assert (tmp_path / "merged" / "README.md").is_file()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "c.yaml"]
    assert len(files) >= 15
    assert {(path.name, word) for path in files for word in WORDS if word.encode() in path.read_bytes()} == set()
    assert RunDir(tmp_path / "results" / "r").has_adapter


@pytest.mark.parametrize("where", ["a pipe", "a terminal"])
def test_only_on_a_terminal_lines_end_in_padding(monkeypatch, where):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: where == "a terminal", raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    table = new_table(Text("name"), Text("verdict"))
    table.add_row("a", "long enough to wrap")
    table.add_row("b", "short")
    terminal.console().print(table)
    padded = [line for line in stream.getvalue().splitlines() if line.endswith(" ")]
    assert bool(padded) == (where == "a terminal")
    assert "b     short" in stream.getvalue()


@pytest.mark.parametrize("what", ["an association – almost none", "almost none, and no more"])
def test_lines_with_joined_words_are_not_wider_than_asked(what):
    """A p-value is kept whole, and its spaces take columns also in texts that are not ASCII."""
    for width in range(16, 60):
        lines = in_lines(f"{what} (p <= 0.001); valid 99.3 % of all, `diffuse train c`", width)
        assert max(map(cell_len, lines)) <= width
        assert any("(p <= 0.001);" in line for line in lines)
        assert any("99.3 % of" in line or line.endswith("99.3 %") for line in lines)


@given(
    st.lists(st.sampled_from(["– ü", "(p <= 0.01)", "p < 3;", "9 %", "`a b c`", "word", "満足"]), min_size=1), st.integers(11, 40)
)
def test_lines_of_any_words_fit_and_lose_nothing(words, width):
    lines = in_lines(" ".join(words), width)
    assert all(cell_len(line) <= width for line in lines)
    assert " ".join(lines).split() == " ".join(words).split()
