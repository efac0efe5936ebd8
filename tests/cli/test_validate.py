"""What `diffuse validate` prints of sound and of broken files."""

import json

import pytest

from tests.cli.configs import config_text
from tests.tiny import CHATML


def test_validate_accepts_prompts_configs_and_folders(in_process, prompt_file, tmp_path):
    prompt_file("p.json")
    (tmp_path / "c.yaml").write_text(config_text("owner/m", "p.json"))
    for words in (["p.json"], ["c.yaml"], ["."]):
        done = in_process("validate", *words)
        assert done.returncode == 0, done.stderr
    assert "sound: 1 prompt, 1 config; 0 errors" in in_process("validate", "p.json", "c.yaml").stdout


def test_prompts_that_a_command_has_yet_to_make_are_a_notice(in_process, tmp_path):
    text = config_text("owner/m", "mix/train") + "made_by: diffuse init-prompt --mixture 60 -o mix\n"
    (tmp_path / "c.yaml").write_text(text)
    done = in_process("validate", "--strict", "c.yaml")
    assert (done.returncode, "sound: 0 prompts, 1 config; 0 errors, 0 warnings, 2 notices" in done.stdout) == (0, True)
    assert "mix/train does not exist yet. Create it with `diffuse init-prompt --mixture 60 -o mix`" in done.stderr
    (tmp_path / "c.yaml").write_text(config_text("owner/m", "mix/train"))
    assert in_process("validate", "c.yaml").returncode == 1


def test_a_folder_of_runs_is_not_checked_file_by_file(in_process, prompt_file, tmp_path):
    """The JSON files of a run are no prompts, wherever the run is."""
    for name in ("a", "b"):
        run = tmp_path / "results" / name
        (run / "prompts").mkdir(parents=True)
        (run / "config.yaml").write_text(config_text("owner/m", "p.json"))
        for file in ("run.json", "gen.json", "prompts/p.json"):
            (run / file).write_text("{}")
    done = in_process("validate", "results/")
    assert (done.returncode, done.stdout) == (2, "")
    expected = "results: contains runs, and no prompt or config of its own. Name the config of a run: results/a/config.yaml"
    assert expected in done.stderr
    prompt_file("p.json")
    done = in_process("validate", ".")
    assert (done.returncode, "sound: 1 prompt, 0 configs" in done.stdout) == (0, True)


@pytest.mark.parametrize("command", [("sample", "--model", "m", "--prompt"), ("train", "--model", "m", "-o", "r", "--prompt")])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my x.csv", "my x.csv: is a table, not a prompt (.json). Create a prompt from it: `diffuse init-prompt --from 'my x.csv' -o 'my x.json'`"),
        ("x.parquet", "x.parquet: is a table, not a prompt (.json). Create a prompt from it: `diffuse init-prompt --from x.parquet -o x.json`"),
        ("c.yaml", "c.yaml: is a config, not a prompt (.json). Name a prompt, or the config in place of the run"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_not_read_as_a_prompt(in_process, tmp_path, command, name, message):
    (tmp_path / name).write_text(config_text("owner/m", "p.json") if name == "c.yaml" else "a,b\n1,2\n")
    done = in_process(*command, name)
    assert done.returncode == 2
    assert message in done.stderr


def test_wordings_are_counted(in_process, prompt_file):
    prompt_file("p.json", request=["Roll a die.", "Throw a die."], held_out_requests=["A die, please."])
    prompt_file("q.json")
    assert "sound: 2 prompts in 3 wordings and 1 held out, 0 configs; 0 errors" in in_process("validate", "p.json", "q.json").stdout
    told = json.loads(in_process("validate", "p.json", "q.json", "--json").stdout)
    assert [(p["wordings"], p["held_out_wordings"]) for p in told["prompts"]] == [(2, 1), (1, 0)]


def test_an_unknown_key_of_a_message_is_told_with_those_that_a_message_has(in_process, tmp_path):
    (tmp_path / "m.json").write_text('{"messages": [{"role": "user", "contents": "A letter."}], "targets": ["a"]}')
    assert "unknown key 'contents'. Did you mean 'content'?" in in_process("validate", "m.json").stderr


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"load_model": True, "ckpt_dir": "r/a"}, 1, "r/a is in the output_dir, which training empties first"),
        ({"load_model": True, "ckpt_dir": "odd"}, 1, "odd/adapter_config.json:1:"),
        ({"load_model": True, "ckpt_dir": "later"}, 0, "later does not exist yet. First train the run that creates it"),
        ({"load_model": True, "ckpt_dir": "p"}, 1, "p contains no adapter. Use the folder of a trained run"),
        ({"device": "gpu"}, 1, "unknown device 'gpu'. Use auto, cpu, cuda"),
        ({"device": "cuda:1"}, 0, ""),
        ({"tracker": "clearml"}, 0, "clearml is not installed here. Run `pip install clearml` where you train"),
        ({"output_dir": "p/0.json/x"}, 1, "p/0.json/x: cannot be written: Not a directory"),
        ({"retain": {"prompts": ["p/0.json", "p/1.json"]}}, 1, "has 2 instructions, but at least 3 are needed"),
        ({"retain": {"prompts": ["p"]}}, 0, ""),
    ],
)
def test_validate_finds_what_train_would_refuse_before_it_loads_a_model(in_process, tmp_path, fields, code, told):
    (tmp_path / "p").mkdir()
    for number in range(3):
        (tmp_path / "p" / f"{number}.json").write_text(json.dumps({"request": f"Say {number}.", "targets": ["{a}", "{b}"]}))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    (tmp_path / "odd" / "adapter_model.safetensors").write_bytes(b"")
    settings = {"model": "owner/name", "train_prompts": ["p/0.json"], "output_dir": "r", **fields}
    (tmp_path / "c.yaml").write_text(json.dumps(settings))
    done = in_process("validate", "c.yaml")
    assert done.returncode == code, done.stderr
    assert told in done.stderr


def test_validate_tells_every_problem_and_exits_1(in_process, prompt_file, tmp_path):
    prompt_file("a.json", weights=[1])
    prompt_file("b.json", weights=[1, -1])
    done = in_process("validate", ".")
    assert done.returncode == 1
    assert "a.json:1:" in done.stderr
    assert "the weight -1 is not a probability" in done.stderr
    assert done.stdout == "failed: 2 errors, 2 warnings, 0 notices; passed: 0 prompts, 0 configs\n"
    prompt_file("c.json")
    assert in_process("validate", ".").stdout.endswith("failed: 2 errors, 3 warnings, 0 notices; passed: 1 prompt, 0 configs\n")


def test_what_a_tokenizer_refuses_is_not_sound_and_its_warnings_count_as_errors_when_strict(
    in_process, prompt_file, tiny_model_folder, tmp_path
):
    prompt_file("a.json", request="Say a letter, like this: {letter}.")
    (tmp_path / "t.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + CHATML)
    dated = ("--model", tiny_model_folder, "--chat-template", "t.jinja")
    (tmp_path / "r.jinja").write_text("{{ raise_exception('no') }}")
    refusing = ("--model", tiny_model_folder, "--chat-template", "r.jinja")
    done = in_process("validate", "a.json", *refusing)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1,
        "failed: 1 error, 0 warnings, 0 notices; passed: 0 prompts, 0 configs",
    )
    for strict, code, line in (
        ((), 0, "sound: 1 prompt, 0 configs; 0 errors, 1 warning, 0 notices"),
        (("--strict",), 1, "failed: 1 error, 0 warnings, 0 notices; passed: 0 prompts, 0 configs"),
    ):
        done = in_process("validate", "a.json", *dated, *strict)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, line), done.stderr


def test_rows_of_a_table_that_are_skipped_are_named(in_process, tmp_path):
    (tmp_path / "people.csv").write_text("name,age\nAnn,34\n,\nBob,\nAnn ,34\nBob,35\n")
    column = {"from": "people.csv", "column": "name", "count": True}
    record = {"from": "people.csv", "template": "{name}, {age}"}
    for targets, says in (
        (column, "skipped empty rows: 1 (row 2)"),
        (record, "skipped rows with an empty field: 2 (row 2; row 3)"),
    ):
        (tmp_path / "p.json").write_text(json.dumps({"request": "Who?", "targets": targets}))
        done = in_process("validate", "p.json")
        assert done.returncode == 0
        assert says in done.stderr


def test_samples_beside_prompts_are_not_checked_as_prompts(in_process, prompt_file, tmp_path):
    prompt_file("p.json")
    for name in ("before.json", "before.meta.json"):
        (tmp_path / name).write_text('{"mode": "untuned"}')
    done = in_process("validate", ".")
    assert done.returncode == 0, done.stderr
    assert "before" not in done.stdout + done.stderr
