"""Every command that README and the book print runs as it is printed.

A page's `sh` blocks run from top to bottom in one folder that has `prompts/`, `configs/` and `schemas/` of the repository. A block with a
title (```yaml title="dice.yaml") becomes that file, and what a page takes for granted is made by `NEEDS`. A block after
`<!-- not run: why -->` is not run; its `diffuse` commands must parse all the same.

What differs from a user's run: `smollm2-135m-instruct` is a tiny random model with the real tokenizer, which mostly ends its answers at once;
a training is one iteration of tiny steps, whatever its config says, so that answers stay short; and so `evaluate` may end with 1 where limits were set.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer

from diffusecli.cli.app import app
from tests import ROOT
from tests.tiny import tiny_llama

NAME = "smollm2-135m-instruct"
HARMLESS = ("cat", "cp", "head", "ls", "mkdir")
"""Other commands that a page may have run."""

BOOK = ["README.md", "SECURITY.md", "prompts/README.md", "configs/README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]  # fmt: skip
PAGES = sorted(page for page in BOOK if "```sh\n" in (ROOT / page).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    line: int  # of its first line
    language: str
    title: str  # the file that it is, if it is one
    mark: str  # why it is not run, if it is not
    text: str


def blocks(page):
    r"""The blocks of a page.

    >>> [(block.line, block.mark, block.text) for block in blocks("<!-- not run: slow -->\n```sh\na\n```\n\n```sh\nb\n```\n")]
    [(3, 'slow', 'a\n'), (7, '', 'b\n')]
    """
    fenced = re.compile(
        r'(?:^<!-- not run: ([^\n]+) -->\n\n?)?^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL
    )
    for found in fenced.finditer(page):
        yield Block(page.count("\n", 0, found.start(4)) + 1, found[2], found[3] or "", found[1] or "", found[4])


def statements(text):
    r"""Each command of a block as words; operators are words of their own, after `<<` stands the text itself. Comments go.

    >>> list(statements("a 'b  c' \\\n  d > e   # f\n\ng 'two\nlines'\ncat > h <<'END'\ni\nj\nEND\n"))
    [['a', 'b  c', 'd', '>', 'e'], ['g', 'two\nlines'], ['cat', '>', 'h', '<<', 'i\nj\n']]
    """
    lines, waiting = iter(text.replace("\\\n", " ").splitlines()), ""
    for line in lines:
        waiting += line
        words = shlex.shlex(waiting, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        try:
            found = list(words)
        except ValueError:  # a quotation that goes on
            waiting += "\n"
            continue
        waiting = ""
        if "<<" in found:
            ending = found.pop()
            found.append("".join(f"{each}\n" for each in iter(lambda: next(lines), ending)))
        if found:
            yield found


def arguments(words):
    """What `diffuse` is given, however it is started; None where a command does not start it."""
    words = words[next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), 0) :]
    ends = next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))
    if words[0] == "diffuse":
        return words[1:ends]
    if "diffusecli" in words and words[words.index("diffusecli") - 1] == "-m":
        return words[words.index("diffusecli") + 1 : ends]
    return None


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A cache in which the built-in model is a tiny one."""
    import torch
    from transformers import AutoTokenizer

    from diffusecli.models.builtin import ensure_builtin

    real = ensure_builtin(NAME, print)
    tokenizer = AutoTokenizer.from_pretrained(real)
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "models" / real.name
    model = tiny_llama(len(tokenizer), eos_token_id=tokenizer.eos_token_id, initializer_range=0.02, tie_word_embeddings=False)
    with torch.no_grad():  # the first of the hidden units stays as it is and speaks for the end of the answer
        model.model.embed_tokens.weight[:, 0] = 1
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        model.lm_head.weight[tokenizer.eos_token_id, 0] = 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return cache


@pytest.fixture
def shell(stand_in, tmp_path, monkeypatch, in_process):
    """Runs a command (`ran`) in an empty folder with what the repository has, trainings that take a second, and one thread: more wait for each other."""
    import torch

    from diffusecli.prompts import config_files

    def once(*words, **options):
        inspected = real(*words, **options)
        if (read := inspected.config) is None:
            return inspected
        short = read.alg_config.model_copy(update={"n_iters": 1, "learning_rate": 1e-6})
        return replace(inspected, config=read.model_copy(update={"alg_config": short}))

    real = config_files.inspect_config
    monkeypatch.setattr(config_files, "inspect_config", once)
    monkeypatch.setenv("DIFFUSE_CACHE", str(stand_in))
    for name in ("prompts", "configs", "schemas"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda words: ran(words, in_process)
    torch.set_num_threads(threads)


def a_run(shell, name):
    """A finished run on numbers from 1 to 10; trained once, copied for all."""
    source = Path(os.environ["DIFFUSE_CACHE"]) / "a-run"
    if not source.exists():
        prompts = ["prompts/numbers/rng-0.json"]
        config = {"model": NAME, "train_prompts": prompts, "test_prompts": prompts, "retain": False, "output_dir": str(source)}
        Path("of-the-test.yaml").write_text(json.dumps(config))
        shell(["diffuse", "train", "of-the-test.yaml"])
    shutil.copytree(source, name)


def answers_of_people(_):
    """A table with a column of answers, for `mine.json` and for counting by group."""
    rows = [f"{region},Do you cycle to work?,{{{answer}}}" for region in ("north", "south") for answer in ("yes", "no", "no")]
    Path("answers.csv").write_text("\n".join(["region,question,answer", *rows]) + "\n")
    Path("mine.json").write_text(json.dumps({"request": "Answer {yes} or {no}.", "targets": ["{yes}", "{no}"]}))


def an_old_result(_):
    """Samples of the original's code, whose prompts lie elsewhere."""
    Path("old").mkdir()
    Path("old/gen.json").write_text(json.dumps({"../elsewhere/rng-0.json": ["{1}", "{7}", "{7}"]}))


def foreign_models(_):
    """A base model and an adapter from somewhere."""
    from diffusecli.models.builtin import ensure_builtin

    shutil.copytree(ensure_builtin(NAME, print), "some/base-model")
    Path("some/lora/folder").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(f"results/numbers/{name}", "some/lora/folder")


def held_out(_):
    """Prompts that were not trained on."""
    shutil.copytree("prompts/weighted", "held-out", ignore=lambda _, names: [n for n in names if not n.startswith("dice")])


def logged_by_lm_eval(_):
    """Answers that lm-eval logged, as they were recorded."""
    shutil.copy(ROOT / "tests/evaluation/lm_eval/numbers.jsonl", "adapter.jsonl")


NUMBERS = (lambda shell: a_run(shell, "results/numbers"),)
TWO_MORE = (lambda shell: a_run(shell, "results/a"), lambda shell: a_run(shell, "results/b"))
NEEDS = {
    "docs/how-to/sample.md": (*NUMBERS, answers_of_people, foreign_models),
    "docs/how-to/evaluate.md": (*NUMBERS, *TWO_MORE, answers_of_people, an_old_result, held_out),
    "docs/how-to/lm-eval.md": (*NUMBERS, logged_by_lm_eval),
    "docs/how-to/export.md": NUMBERS,
    "docs/how-to/ci-gate.md": NUMBERS,
    "docs/how-to/resume.md": NUMBERS,
    "docs/how-to/prompting.md": NUMBERS,
}  # fmt: skip
"""Page -> what it takes for granted."""


def ran(words, run):
    """Run one command as a shell would; an `AssertionError` with what it said where it fails."""
    assert not {"|", "&&", "||", ";", "<", "&"} & set(words), f"{words}: this test knows no such shell"
    given = arguments(words)
    if given is None:
        assert words[0] in HARMLESS, f"`{words[0]}` is not run here: mark the block with <!-- not run: why -->"
        text = words[words.index("<<") + 1] if "<<" in words else ""
        own = words[: next((i for i, word in enumerate(words) if word in (">", ">>", "<<")), len(words))]
        said = subprocess.run(own, input=text, check=True, capture_output=True, text=True).stdout
    else:
        done = run(*given)
        judged = given[0] == "evaluate" and any(re.match("--(min|max)-", word) for word in given)
        assert done.returncode == 0 or (judged and done.returncode == 1), (words, done.returncode, done.stderr)
        said = done.stdout
    for sign, mode in ((">", "w"), (">>", "a")):
        if sign in words:
            with Path(words[words.index(sign) + 1]).open(mode, encoding="utf-8") as file:
                file.write(said)


@pytest.mark.model
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_as_they_are_printed(page, shell):
    for make in NEEDS.get(page, ()):
        make(shell)
    failed = []
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "sh" and not block.mark:
            for words in statements(block.text):
                try:
                    shell(words)
                except (AssertionError, OSError, subprocess.CalledProcessError) as error:
                    failed.append(f"{page}:{block.line}: {shlex.join(words)}: {error}")
    assert failed == []


@pytest.mark.model
def test_the_first_steps_that_help_tells_run_as_they_are_printed(shell):
    steps = [line.strip().partition("   ")[0] for line in app.info.epilog.splitlines() if line.startswith("  diffuse ")]
    assert len(steps) == 5
    for step in steps:
        shell(step.replace("COMMAND", "train").split())


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_not_run_have_options_that_exist(page):
    top = typer.main.get_command(app)
    parent = top.make_context("diffuse", [], resilient_parsing=True)
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        for words in statements(block.text) if block.mark and block.language == "sh" else ():
            given = arguments(words)
            if given is None:
                continue
            if given[0].startswith("-"):
                assert given[0] in [name for option in top.get_params(parent) for name in option.opts], words
                continue
            assert given[0] in top.commands, words
            top.commands[given[0]].make_context(given[0], given[1:], parent=parent)  # raises for what it does not know


def test_a_printed_command_with_a_mistake_is_noticed(tmp_path, monkeypatch, in_process):
    monkeypatch.chdir(tmp_path)
    for words in (
        ["diffuse", "validate", "nowhere.json"],
        ["diffuse", "tarin"],
        ["diffuse", "validate", "--no-such"],
        ["vllm", "serve"],
    ):
        with pytest.raises(AssertionError):
            ran(words, in_process)
    ran(["diffuse", "init-prompt", "--dice", "2d6", "--no-preview", ">", "dice.json"], in_process)
    assert len(json.loads(Path("dice.json").read_text())["targets"]) == 11
