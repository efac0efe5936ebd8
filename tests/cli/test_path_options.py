"""Paths as people write them: `~`, patterns, and what other tools would fill in; no folder gets a name that nobody meant."""

import json
from pathlib import Path

import pytest

from diffusecli.files.paths import LIBRARY, meant, spread
from diffusecli.prompts.config_files import inspect_config, read_config
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.finding import config_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError
from diffusecli.verbs.validate import validate

OWN = {"request": "Say a letter.", "targets": ["{a}", "{b}"]}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder beside the working directory."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def write(path, content=OWN):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def config(text="", **fields):
    lines = {"model": "m", "train_prompts": "[]", "output_dir": "out", **fields}
    return write(Path("c.yaml"), "".join(f"{key}: {value}\n" for key, value in lines.items()) + text)


@pytest.mark.parametrize("path", ["~", "~/a", "~/a/~", "~root/x"])
def test_the_home_folder_is_meant(path, home):
    expected = path.replace("~", str(home), 1) if not path.startswith("~root") else str(Path(path).expanduser())
    assert meant(path) == expected


def test_a_folder_called_tilde_does_not_take_the_place_of_the_home_folder(home):
    Path("~").mkdir()
    assert meant("~/a") == f"{home}/a"
    assert meant("./~/a") == "./~/a"


def test_a_user_that_is_not_there_is_no_folder_unless_it_is(home):
    with pytest.raises(InputError, match=r"~nobody-here/x: unknown user 'nobody-here'. Write \./~nobody-here/x"):
        meant("~nobody-here/x")
    assert meant(str(write(Path("~draft.json")))) == "~draft.json"


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("$HOME/x", "$HOME"), ("a/${model}/b", "${model}"), ("${oc.env:MODEL,x}", "${oc.env:MODEL,x}"), ("{{ name }}/x", "{{ name }}"),
        ("$(pwd)/x", "$(pwd)"), ("a{% if x %}", "{% if x %}"), ("???", "???"), ("${", "${"), ("{{x", "{{x"),
    ],
)  # fmt: skip
def test_what_other_tools_fill_in_is_not_taken_literally(path, left):
    with pytest.raises(InputError) as error:
        meant(path)
    assert f"'{left}' is not replaced by a value. Write the value itself" in str(error.value)


def test_an_address_is_no_folder(in_process, tmp_path):
    done = in_process("sample", "--model", "m", "--request", "x", "-o", "s3://bucket/s.json", cwd=tmp_path)
    assert (done.returncode, "s3:/bucket/s.json: is an address, not a path" in done.stderr) == (2, True)
    with pytest.raises(InputError, match=r"hf://owner/name: is an address, not a path\. Use a local path"):
        meant("hf://owner/name")


@pytest.mark.parametrize("path", ["a$", "5 $", "a$-b", "{model}", "{a}", "what???", "a~b", "owner/name", "[a].json", "100%"])
def test_signs_that_ask_for_nothing_are_signs(path):
    assert meant(path) == path


def test_a_file_that_is_there_is_meant_whatever_it_is_called():
    assert meant(str(write(Path("$x.json")))) == "$x.json"


def test_every_path_of_a_config_may_be_below_the_home_folder(home):
    for name in ("p.json", "t.json", "r.json"):
        write(home / name)
    write(home / "t.jinja", "x")
    path = config(
        "load_model: true\n", model="~/m", train_prompts="[~/p.json]", test_prompts="[~/t.json]", output_dir="~/o/{model}",
        ckpt_dir="~/c", chat_template="~/t.jinja", retain="{prompts: [~/r.json]}",
    )  # fmt: skip
    found = read_config(path)
    paths = [found.model, *found.train_prompts, *found.test_prompts, found.output_dir, found.ckpt_dir, found.chat_template]
    paths += found.retain.prompts
    assert paths == [f"{home}/{end}" for end in ("m", "p.json", "t.json", "o/m", "c", "t.jinja", "r.json")]
    again = write(Path("again.yaml"), found.to_yaml())
    assert read_config(again) == found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "'???'"), ("model", "'${oc.env:MODEL,m}'"), ("output_dir", "results/${model}/run"), ("output_dir", "$SCRATCH/run"),
        ("output_dir", "'results/{seed}'"), ("output_dir", "'{{ cookiecutter.run }}'"), ("output_dir", "'???'"), ("ckpt_dir", "'runs/${name}'"),
        ("ckpt_dir", "'runs/{name}'"), ("train_prompts", "['${name}.json']"), ("test_prompts", "['$P']"), ("chat_template", "$T"),
        ("device", "'${device}'"), ("revision", "'${rev}'"), ("retain", "{prompts: ['$P']}"), ("train_prompts", "['???']"),
        ("output_dir", "~nobody-here/run"), ("output_dir", "s3://bucket/run"), ("train_prompts", "['https://a.b/c.json']"),
        ("output_dir", "results/run.json"), ("output_dir", "results/{model}.gguf"),
    ],
)  # fmt: skip
def test_a_config_says_where_something_would_be_taken_literally(field, value):
    write(Path("abc"))  # which ??? would match
    path = config(**{field: value})
    errors = [problem for problem in inspect_config(path).problems if problem.severity == "error"]
    assert len(errors) == 1, errors
    assert errors[0].line == [line.split(":")[0] for line in path.read_text().splitlines()].index(field) + 1
    reasons = (
        "is not replaced by a value",
        "unknown user",
        "is an address, not a path",
        "a run is a folder, not a",
        "variable model is not set",
    )
    assert sum(reason in str(errors[0]) for reason in reasons) == 1
    if value == "$SCRATCH/run":
        assert "Write ${SCRATCH} for an environment variable" in str(errors[0])
    if "{seed}" in value:
        assert "Only {model}, {config} and ${NAME} are replaced" in str(errors[0])
    assert validate([path]).failed


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("{confg}", "Did you mean '{config}'?"), ("{Model}", "Did you mean '{model}'?"), ("{models}", "Did you mean '{model}'?"),
        ("{seed}", "Only {model}, {config} and ${NAME} are replaced: write the value itself"),
    ],
)  # fmt: skip
def test_a_misspelt_placeholder_is_recognised(written, remedy):
    (problem,) = [p for p in inspect_config(config(output_dir=f"'results/{written}'")).problems if p.severity == "error"]
    assert str(problem).endswith(f"'{written}' is not replaced by a value. {remedy}")


def test_without_a_config_file_its_placeholder_is_not_suggested(in_process):
    for folder in ("{config}", "{confg}"):
        done = in_process("train", "--model", "owner/m", "--prompt", write(Path("a.json")), "-o", folder)
        assert done.returncode == 2
        assert f"'{folder}' is not replaced by a value. Only {{model}}, {{config}} and ${{NAME}} are replaced" in done.stderr


def test_it_is_said_beside_other_mistakes():
    path = config(train_prompts="['${name}.json']", name="x")
    said = [str(problem) for problem in validate([path]).problems]
    assert any("unknown key 'name'" in line for line in said)
    assert any("'${name}' is not replaced by a value" in line for line in said)


def test_an_option_that_sets_it_is_named():
    with pytest.raises(InputError, match=r"--set output_dir=\$X/r: \$X/r: '\$X' is not replaced by a value"):
        read_config(config(), ["output_dir=$X/r"])


def test_texts_that_are_no_paths_may_hold_any_sign():
    found = read_config(config(system='"{{ $x }} ~"', chat_template_kwargs="{a: '${b}'}"))
    assert (found.system, found.chat_template_kwargs) == ("{{ $x }} ~", {"a": "${b}"})


def test_the_config_of_a_run_is_read_as_it_was_resolved(tmp_path):
    run = RunDir(tmp_path / "here" / "run")
    write(run.config, "model: m\ntrain_prompts: ['$p/x.json', '~/q.json', '[z].json']\noutput_dir: 'results/${model}/{seed}'\n")
    assert config_of(run).train_prompts == ("$p/x.json", "~/q.json", "[z].json")


def test_patterns_are_the_prompts_they_match(home):
    for name in ("b.json", "a.json", "sub/c.json", ".hidden.json", "[x].json", "notes.txt"):
        write(Path("p", name))
    assert read_config(config(train_prompts="['p/*.json']")).train_prompts == ("p/[x].json", "p/a.json", "p/b.json")
    assert read_config(config(train_prompts="['p/*']")).train_prompts == ("p/[x].json", "p/a.json", "p/b.json", "p/sub")
    assert read_config(config(train_prompts="['**/c.json', 'p/[ab].json']")).train_prompts == (
        "p/sub/c.json",
        "p/a.json",
        "p/b.json",
    )
    assert read_config(config(train_prompts="['p/[x].json']")).train_prompts == ("p/[x].json",)
    write(home / "h.json")
    assert read_config(config(train_prompts="['~/?.json']")).train_prompts == (f"{home}/h.json",)
    assert [prompt.alias for prompt in read_prompts(["p/[ab].json"])] == ["p/a.json", "p/b.json"]
    assert len(validate([Path("p/*.json")]).prompts) == 3


def test_patterns_are_looked_for_beside_the_config_and_in_the_library(home):
    write(home / "p" / "a.json")
    path = home / "c.yaml"
    config(train_prompts="['p/*.json']").rename(path)
    assert read_config(path).train_prompts == (str(home / "p" / "a.json"),)
    found = spread("prompts/numbers/rng-*.json")
    assert "prompts/numbers/rng-0.json" in found
    assert all((LIBRARY / name).is_file() for name in found)
    assert spread("diffusecli/*.py") == ["diffusecli/*.py"]


def test_a_pattern_that_matches_nothing_is_said_with_its_place():
    path = config(model="owner/m", train_prompts="['a.json', 'none/*.json']")
    write(Path("a.json"))
    (problem,) = [problem for problem in validate([path]).problems if problem.severity == "error"]
    assert str(problem).startswith("c.yaml:2:27: none/*.json matches no *.json prompt or folder. Check the pattern")


def test_problems_of_later_entries_keep_their_place_behind_a_pattern():
    for name in ("a.json", "b.json"):
        write(Path("p", name))
    path = config(model="owner/m", train_prompts="['p/*.json', 'none.json']")
    (problem,) = [problem for problem in validate([path]).problems if problem.severity == "error"]
    assert (problem.column, "none.json does not exist" in str(problem)) == (29, True)


def test_options_mean_the_same(in_process, home, tmp_path):
    write(home / "p.json")
    here = tmp_path / "here"
    assert in_process("init-prompt", "--binomial", "4", ".5", "-o", "~/made/x.json", cwd=here).returncode == 0
    assert json.loads((home / "made" / "x.json").read_text())["targets"]
    assert "2 prompts" in in_process("validate", "~/p.json", "~/made", cwd=here).stdout
    for words in (
        ["init-prompt", "--binomial", "4", ".5", "-o", "$OUT/x.json"], ["sample", "--model", "${MODEL}", "--request", "x"],
        ["evaluate", "$RUNS"], ["train", "c.yaml", "--set", "output_dir=$OUT"], ["export", "r", "-o", "{{ name }}"],
    ):  # fmt: skip
        config()
        done = in_process(*words, cwd=here)
        assert (done.returncode, "is not replaced by a value" in done.stderr) == (2, True), done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["c.yaml"]


def test_a_quoted_pattern_is_for_the_shell(in_process, tmp_path):
    done = in_process("evaluate", "results/*", cwd=tmp_path)
    assert "Let the shell replace the pattern: remove the quotes around it" in done.stderr
