"""Errors of the command line and of files name what was given, and suggest only what is near and works."""

import pytest
import yaml


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("train", "c.yaml", "--iters", "5"),
            "No such option: --iters. Settings of a config have --set, e.g. --set alg_config.n_iters=5.",
        ),
        (
            ("train", "--config", "tickets.yaml"),
            "No such option: --config. Name the config without an option: diffuse train tickets.yaml.",
        ),
        (("train", "--config=a b.yaml"), "Name the config without an option: diffuse train 'a b.yaml'."),
        (("train", "c.yaml", "--gamma=2"), "e.g. --set alg_config.gamma=2."),
        (("train", "c.yaml", "--promt", "p.json"), "No such option: --promt. Did you mean --prompt?"),
        (("sample", "--temp", "2"), "No such option: --temp. Did you mean --temperature?"),
        (("train", "c.yaml", "--colour"), "No such option: --colour. See"),
        (("evaluate", "x", "--bogus", "1"), "No such option: --bogus. See"),
        (("evaluate", "x", "--max-tvd", "1.5x"), "--max-tvd 1.5x: must be a number. See"),
        (("evaluate", "x", "--max-tvd=y"), "--max-tvd y: must be a number. See"),
        (("sample", "-n", "x5"), "-n (--n-generations) x5: must be a whole number. See"),
        (("sample", "-nx5"), "-n (--n-generations) x5: must be a whole number. See"),
        (("init-prompt", "--binomial", "10", "x"), "--binomial x: must be a number. See"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_was_meant(in_process, words, says):
    done = in_process(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_train_reports_every_problem_of_a_config_in_the_order_of_lines(in_process, tmp_path):
    config = {"train_prompts": ["dicee.json"], "output_dir": 3, "model": "m", "alg_config": {"n_itrs": 3}, "seed": -1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    lines = in_process("train", "c.yaml").stderr.splitlines()
    assert [line.split(":")[:3] for line in lines] == [["diffuse", " c.yaml", str(number)] for number in (2, 3, 6, 7)]
    assert "dicee.json does not exist" in lines[0]


def test_problems_that_do_not_depend_on_each_other_are_reported_together(in_process, tmp_path):
    (tmp_path / "d.json").write_text('{"request": "a", "targets": ["{a}", "{a}"],\n"weights": ["x", 1]}')
    said = in_process("validate", "d.json").stderr
    assert "duplicate target '{a}'" in said
    assert "'weights[0]' must be a number, not 'x'" in said


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "e.json",
            '{\n"request": "a",\n"targets": ["a"]\n',
            "e.json:4:1: invalid JSON: the bracket { of line 1 is not closed. Add }",
        ),
        ("e.json", '{"request": "a', "the text that starts here has no closing quote"),
        ("y.yaml", "model: m\ntrain_prompts: [a\nseed: 3\n", "y.yaml:2:16: invalid YAML: the bracket [ is not closed. Add ]"),
        ("y.yaml", "lora:\n    r: 2\n  alpha: 3\n", "y.yaml:3:3: invalid YAML: the indentation differs"),
        ("y.yaml", "model: m\n  output_dir: x\n", "y.yaml:2:13: invalid YAML: a colon where no key can be. Check the indentation"),
        ("y.yaml", "model: 'm\nseed: 3\n", "y.yaml:1:8: invalid YAML: the text that starts here has no closing quote"),
    ],
)
def test_syntax_errors_are_said_in_plain_words(in_process, tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    assert says in in_process("validate", name).stderr


def test_what_is_missing_is_not_confused_with_something_else(in_process, tmp_path):
    (tmp_path / "pets.csv").write_text("a\n")
    (tmp_path / "pets2.json").write_text("{}")
    (tmp_path / "results" / "dice").mkdir(parents=True)
    (tmp_path / "results" / "dice" / "config.yaml").write_text("model: m\n")
    (tmp_path / "raw.txt").write_text("a\nb\n")
    for words, says in (
        (("sample", "results/none"), "results/none: does not exist. Runs in results: results/dice"),
        (("export", "results/zzzz", "-o", "x"), "results/zzzz: does not exist. Runs in results: results/dice"),
        (("export", "results/dicee", "-o", "x"), "Did you mean 'results/dice'?"),
        (("evaluate", "raw.txt"), "raw.txt: is not a file of samples. For raw answers, name their prompt with --prompt"),
        (("evaluate", "nope.json"), "nope.json: does not exist. Use a run directory, a folder of runs or a file of samples"),
        (("init-prompt", "--from", "nope.csv"), "nope.csv: does not exist"),
    ):
        done = in_process(*words)
        assert done.returncode == 2
        assert says in done.stderr
        assert "pets" not in done.stderr


@pytest.fixture
def files(tmp_path):
    """Files that are wrong in many ways, and a prompt that is right."""
    for name, content in {
        "p.json": b'{"request": "Say {a} or {b}.", "targets": ["{a}", "{b}"]}',
        "empty.yaml": b"",
        "latin.json": '{"request": "r",\n "targets": ["é"]}'.encode("latin-1"),
        "c.yaml": b"model: smollm2-135m-instruct\ntrain_prompts: [pp.json]\noutput_dir: out\n",
        "m.yaml": b"model: nosuch\ntrain_prompts: [p.json]\noutput_dir: out\n",
        "o.yaml": b"model: smollm2-135m-instruct\ntrain_prompts: [p.json]\noutput_dir: p.json\n",
        "run/run.json": b"{}",
        "run/config.yaml": b"model: smollm2-135m-instruct\ntrain_prompts: []\noutput_dir: run\n",
        "bin.txt": b"a\0b\nc\n",
        "g.csv": b"region,pet,n\nN,cat,1\nS,dog,2\n",
        "here/x": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


GROUPED = (
    "init-prompt",
    "--from",
    "g.csv",
    "--column",
    "pet",
    "--weight-column",
    "n",
    "--group-by",
    "region",
    "-o",
    "groups",
    "--request",
)


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, ("train", "c.yaml"), "c.yaml:2:17: pp.json does not exist. Did you mean 'p.json'?"),
        (2, ("train", "c.yaml", "--set", "train_prompts=[q]"), "--set train_prompts=[q]: q does not exist."),
        (2, ("train", "c.yaml", "--set", "iters=10"), "--set iters=10: unknown key 'iters'. Did you mean 'alg_config.n_iters'?"),
        (2, ("train", "c.yaml", "--set", "learning_rat=1"), "unknown key 'learning_rat'. Did you mean 'alg_config.learning_rate'?"),
        (2, ("train", "c.yaml", "--set", "zzzz=1"), "unknown key 'zzzz'. Available: model, "),
        (2, ("train", "m.yaml"), "m.yaml:1:1: unknown model 'nosuch'"),
        (2, ("train", "p.json"), "p.json: is a prompt, not a config"),
        (2, ("train", "run"), "run: is a folder. Name the config in it: run/config.yaml"),
        (2, ("train", "o.yaml"), "o.yaml:3:1: p.json: is a file, and a run is a folder. Choose another folder"),
        (1, ("validate", "o.yaml"), "o.yaml:3:1: p.json: is a file, and a run is a folder. Choose another folder"),
        (2, ("train", "empty.yaml"), "empty.yaml: the file is empty. Write keys and values into it"),
        (2, ("train", "c.yaml", "--more", "0"), "--more 0: must be greater than or equal to 1."),
        (1, ("validate", "latin.json"), "latin.json:2:15: byte 31 is not UTF-8. Save the file as UTF-8"),
        (2, ("validate", "pp.json"), "pp.json: does not exist. Did you mean 'p.json'?"),
        (2, ("validate", "run"), "run: is a run. Name its config: run/config.yaml"),
        (2, ("validate", "--schema", "promt"), "--schema promt: must be one of prompt, config, evaluation. Did you mean 'prompt'?"),
        (2, ("sample", "run", "--mode", "tuned"), "--mode tuned: must be one of untuned, lora. Did you mean 'lora'?"),
        (2, ("sample", "run", "--mode", "Base"), "--mode Base: must be one of untuned, lora. Did you mean 'untuned'?"),
        (2, ("sample", "run", "--mode", "untund"), "--mode untund: must be one of untuned, lora. Did you mean 'untuned'?"),
        (2, ("sample", "-n", "ten"), "-n (--n-generations) ten: must be a whole number."),
        (2, ("sample", "--n-generations=ten"), "--n-generations (-n) ten: must be a whole number."),
        (2, ("sample", "--engine", "countin"), "--engine countin: must be one of counting, openai. Did you mean 'counting'?"),
        (2, ("sample", "--prompt", "a.json", "b.json", "c.json"), "repeat the option: --prompt a.json --prompt b.json --prompt c.json"),
        (2, ("sample", "run", "--model", "m", "-n", "5", "me"), "me: belongs to no option. Remove it. See"),
        (2, ("sample", "run", "--per-wording", "me"), "me: belongs to no option. Remove it. See"),
        (2, ("export", "run", "-o", "my", "folder"), "belongs to -o, put quotes around the whole value: -o 'my folder'. See"),
        (2, ("export", "run", "--", "me"), "me: belongs to no option. Remove it. See"),
        (2, ("init-prompt", "--choices", "a=0.5", "b=0.2"), "separate with commas: --choices a=0.5,b=0.2"),
        (2, ("init-prompt", "--choices", ""), "--choices: an entry has no name. Write e.g. rock=1,paper=2"),
        (2, ("init-prompt", "--from", "c.yaml", "-o", "x.json"), "c.yaml: is YAML, and a table is CSV, JSON, Parquet or Excel"),
        (2, ("init-prompt", "--from", "here", "-o", "x.json"), "here: is a folder. Name a file in it"),
        (2, ("init-prompt", "--dice", "2d6", "--force", "-o", "here.json/"), "here.json: is a folder. Name a file in it"),
        (2, ("init-prompt", "--dice", "2d6", "--requests", "bin.txt"), "bin.txt: is a binary file. Save it as text"),
        (2, (*GROUPED, "In {region}, say {pet"), "--request 'In {region}, say {pet': has a brace without its counterpart. Close it"),
        (0, ("init-prompt", "--choices", "a,b", "--request", "Say {pet"), "'Say {pet' has an opening brace that is not closed"),
        (0, ("init-prompt", "--choices", "a,b", "--request", "Say {{pet}}"), "doubled braces, and the model sees them as they are. Write braces once: only the requests of --group-by and --given need them doubled"),
        (0, ("init-prompt", "--dice", "2d6"), "request: Roll 2 fair dice with 6 sides each and report the total."),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place_and_what_to_write(in_process, files, code, words, says):
    (files / "here.json").mkdir()
    before = sorted(files.rglob("*"))
    done = in_process(*words)
    assert says in done.stderr
    assert done.returncode == code
    assert sorted(files.rglob("*")) == before  # nothing is written


def test_a_request_of_the_users_own_is_not_repeated(in_process):
    assert "request:" not in in_process("init-prompt", "--choices", "a,b", "--request", "Say {a} or {b}.").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--request", "Dept of {office}? Answer {answer}."), "warning: {office} is not replaced. Use --group-by office or --given office"),
        (("--request", "Answer {x}.", "--system", "Of {office}"), "warning: {office} is not replaced. Use --group-by office or --given office"),
        (("--request", "Answer.", "--system", "Of {office}"), "warning: {office} is not replaced. Use --group-by office or --given office"),
        (("--request", "Dept? Answer {dept}."), ""),
        (("--request", "Dept of {{office}}?"), ""),
        (("--request", "Dept of {place}? Answer {answer}."), ""),
        (("--request", "Dept of {office}? Answer {{dept}}.", "--group-by", "office", "-o", "groups"), ""),
    ],
)  # fmt: skip
def test_a_column_in_a_request_that_is_not_replaced_is_told(in_process, tmp_path, words, said):
    (tmp_path / "d.csv").write_text("dept,office\nx,A\nx,B\ny,A\n")
    done = in_process("init-prompt", "--from", "d.csv", "--column", "dept", "--count", *words)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "not replaced" in line] == ([said] if said else [])
