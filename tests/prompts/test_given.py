"""A prompt file with given columns: it describes a prompt per combination, made when it is read."""

import json
import shutil
from pathlib import Path

import pytest

from diffusecli.prompts.prompt_files import files_at, inspect_prompt, read_prompt, read_prompts
from diffusecli.system.errors import InputError

PEOPLE = "region,name,age\nnorth,Ann,34\nnorth,Bob,37\nnorth,Ann,31\nsouth,Cid,52\nfar east,Dan,40\n"
REQUEST = "Someone from the {region}: {{name}}."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text(PEOPLE)
    write(tmp_path)
    return tmp_path


def write(folder, request=REQUEST, **changes):
    table = {"from": "people.csv", "column": "name", "count": True, "wrap": "{%s}", "given": ["region"], **changes}
    fields = {"request": request, "targets": {key: value for key, value in table.items() if value is not None}}
    (folder / "by-region.json").write_text(json.dumps(fields))


def test_a_file_holds_a_prompt_per_combination(folder):
    found = read_prompts(["by-region.json"])
    assert [(prompt.alias, prompt.request) for prompt in found] == [
        ("by-region.json/north.json", "Someone from the north: {name}."),
        ("by-region.json/south.json", "Someone from the south: {name}."),
        ("by-region.json/far-east.json", "Someone from the far east: {name}."),
    ]
    assert dict(zip(found[0].targets, found[0].probabilities, strict=True)) == pytest.approx({"{Ann}": 2 / 3, "{Bob}": 1 / 3})
    assert found[1].targets == ("{Cid}",)


def test_one_of_them_has_a_path_of_its_own(folder):
    assert read_prompt("by-region.json/north.json") == read_prompts(["by-region.json"])[0]
    (folder / "more").mkdir()
    for name in ("by-region.json", "people.csv"):
        shutil.copy(name, folder / "more" / name)
    assert [str(path) for path in files_at("more")[1]] == [
        f"more/by-region.json/{name}.json" for name in ("north", "south", "far-east")
    ]
    with pytest.raises(InputError, match=r"no such prompt in the file\. Did you mean 'north\.json'"):
        read_prompt("by-region.json/norht.json")
    with pytest.raises(InputError, match=r"holds 3 prompts\. Name one of them, such as by-region\.json/north\.json"):
        read_prompt("by-region.json")


def test_the_prompts_follow_the_table_and_the_file(folder):
    before = read_prompt("by-region.json/south.json")
    (folder / "people.csv").write_text(PEOPLE + "south,Eve,20\n")
    assert read_prompt("by-region.json/south.json").targets == ("{Cid}", "{Eve}")
    write(folder, "Who lives in the {region}? {{name}}")
    assert read_prompt("by-region.json/south.json").request == "Who lives in the south? {name}"
    assert before.targets == ("{Cid}",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"request": "Someone: {{name}}."}, "would have the same request. put {region} into it"),
        ({"request": "From {regoin}: {{name}}."}, "no column 'regoin' among the groups. Did you mean 'region'?"),
        ({"given": ["regoin"]}, "has no column 'regoin' (given). Did you mean 'region'"),
        ({"given": ["region", "region"]}, "given region,region: names a column twice"),
        ({"from": "persons.csv"}, "persons.csv: does not exist"),
        ({"from": None}, "the key 'from' is missing"),
    ],
)
def test_what_is_wrong_is_one_error_of_the_file(folder, changes, says):
    write(folder, **changes)
    problems = [f"{p.message}. {p.remedy}" for p in inspect_prompt("by-region.json")[1] if p.severity == "error"]
    assert files_at("by-region.json")[1] == [Path("by-region.json")]
    assert len(problems) == 1
    assert says in " ".join(problems[0].split())


def test_a_warning_that_all_prompts_share_comes_once(folder):
    write(folder, "Someone from the {region}.")
    said = [p.message for path in files_at("by-region.json")[1] for p in inspect_prompt(path)[1]]
    assert said == ["the targets have curly braces, but the request does not ask for them"]


def test_init_prompt_writes_such_a_file(folder, in_process):
    done = in_process(
        "init-prompt", "--from", "people.csv", "--template", "{name}, {age}", "--bins", "age=10", "--given", "region", "--request",
        "From the {region}: {{name, age}}.", "-o", "sub/by.json", "--no-preview", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wrote sub/by.json: 3 prompts, made from people.csv when the file is read" in done.stderr
    folders = in_process(
        "init-prompt", "--from", "people.csv", "--template", "{name}, {age}", "--bins", "age=10", "--given", "region", "--request",
        "From the {region}: {{name, age}}.", "-o", "sub/by", "--no-preview", cwd=folder,
    )  # fmt: skip
    assert folders.returncode == 0, folders.stderr
    one, each = read_prompts(["sub/by.json"]), {prompt.alias: prompt for prompt in read_prompts(["sub/by"])}
    assert len(one) == 3
    for prompt in one:
        assert prompt.digest == each[prompt.alias.replace(".json/", "/")].digest


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--top", "2"], "cannot keep --top. Leave it out, or write a folder: -o by"),
        (["--form"], "cannot keep --form"),
        (["--group-by", "age"], "cannot keep --group-by"),
    ],
)
def test_what_such_a_file_cannot_keep_is_refused(folder, in_process, options, says):
    done = in_process(
        "init-prompt", "--from", "people.csv", "--template", "{name}", "--given", "region", "--request", "{region} {age} {{name}}"
        if "age" in options else "{region} {{name}}", "-o", "by.json", *options, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert not (folder / "by.json").exists()


def test_such_prompts_are_trained_sampled_and_evaluated(folder, tiny_model_folder, in_process):
    trained = in_process(
        "train", "--model", tiny_model_folder, "--prompt", "by-region.json", "-o", "run", "--set", "alg_config.n_iters=2",
        "--set", "retain=false", "--set", "device=cpu", cwd=folder,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert json.loads((folder / "run" / "run.json").read_text())["exact_kl"].keys() == {
        f"by-region.json/{name}.json" for name in ("north", "south", "far-east")
    }
    assert in_process("sample", "run", "-n", "20", cwd=folder).returncode == 0
    (folder / "by-region.json").rename(folder / "moved.json")  # the run keeps its prompts
    for words in (["run"], ["run", "--exact", "--prompts", "moved.json/north.json"], ["run", "--only", "south"]):
        done = in_process("evaluate", *words, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
    shown = in_process("evaluate", "run", cwd=folder).stdout
    assert "far-east" in shown


def test_a_config_names_one_of_them_and_a_change_of_the_table_is_reported(folder, tiny_model_folder, in_process):
    (folder / "far").mkdir()
    (folder / "far" / "c.yaml").write_text(
        f"model: {tiny_model_folder}\ntrain_prompts: [by.json/north.json]\noutput_dir: run\ndevice: cpu\nretain: false\nalg_config: {{n_iters: 1}}\n"
    )
    shutil.copy("by-region.json", "far/by.json")
    shutil.copy("people.csv", "far/people.csv")
    trained = in_process("train", "far/c.yaml", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    (folder / "far" / "people.csv").write_text(PEOPLE + "north,Eve,20\n")
    sampled = in_process("sample", "far/c.yaml", "-n", "5", "-o", "s.json", cwd=folder)
    assert sampled.returncode == 0, sampled.stderr
    assert "changed since its training: far/by.json/north.json" in " ".join(sampled.stderr.split())
    assert json.loads((folder / "s.meta.json").read_text())["prompts"]["far/by.json/north.json"]["targets"] == [
        "{Ann}",
        "{Bob}",
        "{Eve}",
    ]
    (folder / "far" / "people.csv").write_text(PEOPLE)
    judged = in_process("evaluate", "s.json", "--prompts", "far/by.json/north.json", cwd=folder)
    assert "differs from the prompt that was sampled" in " ".join(judged.stderr.split())


def test_the_reason_why_one_of_them_is_missing_is_given(folder, in_process):
    near = in_process("validate", "by-region.json/nort.json", cwd=folder)
    assert "Did you mean 'north.json'?" in near.stderr
    (folder / "people.csv").unlink()
    for words in (
        ("validate", "by-region.json/north.json"),
        ("sample", "--model", "none", "--prompt", "by-region.json/north.json"),
    ):
        done = in_process(*words, cwd=folder)
        assert done.returncode in (1, 2)
        assert "people.csv: does not exist" in " ".join(done.stderr.split())


def test_names_do_not_depend_on_the_order_of_the_rows(folder):
    found = []
    for rows in (("C++", "c plus plus"), ("c plus plus", "C++")):
        (folder / "people.csv").write_text("region,name\n" + "".join(f"{row},{name}\n" for row in rows for name in ("Ann", "Bob")))
        found.append({prompt.alias: prompt.request for prompt in read_prompts(["by-region.json"])})
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_doubled_braces_without_groups_are_a_warning(folder, in_process):
    words = ("init-prompt", "--from", "people.csv", "--column", "name", "--count", "--no-preview")
    done = in_process(*words, "--request", "Someone: {{name}}.", cwd=folder)
    assert "warning: --request has doubled braces" in " ".join(done.stderr.split())
    assert "warning" not in in_process(*words, "--request", "Someone: {name}.", cwd=folder).stderr
